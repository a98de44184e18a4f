"""The leaderboard as CSV, Parquet, JSON, Markdown and LaTeX."""

from __future__ import annotations

import io
import json
import math
import re
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pandas as pd

from metric_zoo.text import markdown, plain


@dataclass(frozen=True)
class Column:
    """How a column is shown: its heading, unit included, the text of a row, and what else than ``name`` sorts it."""

    name: str
    heading: str
    text: Callable[[Any], str]
    numeric: bool = True
    order: str = ""
    task: str = ""
    """Whose rows alone have it: ``classification`` or ``denoising`` (either of them)."""

    def shown(self, row: Any) -> str:
        """The text of a row; empty for one of another task."""
        return self.text(row) if self.task in str(row["task"]) else ""

    @property
    def meaning(self) -> str:
        """For who reads the heading and wonders; often empty."""
        return _MEANINGS.get(self.heading, "")

    def key(self, row: Any) -> Any:
        """What rows are sorted by; None where there is nothing."""
        value = row[self.order or self.name]
        return None if pd.isna(value) else value


def number(value: float, digits: int, sign: str = "") -> str:
    """With a fixed number of decimals where a cell has room for it."""
    return f"{value:{sign},.{digits}f}" if abs(value) < 1e12 else f"{value:{sign}.3e}"


def _number(name: str, digits: int, scale: float = 1.0, sign: str = "") -> Callable[[Any], str]:
    return lambda row: "" if pd.isna(row[name]) else number(row[name] * scale, digits, sign)


def _spread(name: str) -> Callable[[Any], str]:
    def text(row: Any) -> str:
        deviation = row[f"{name}_std"]
        if pd.isna(row[name]):
            return ""
        return number(row[name], 2) + ("" if pd.isna(deviation) else f" ± {number(deviation, 2)}")

    return text


def _interval(name: str) -> Callable[[Any], str]:
    def text(row: Any) -> str:
        low, high = row[f"{name}_low"], row[f"{name}_high"]
        return "" if pd.isna(low) else f"{number(low, 2)} to {number(high, 2)}"

    return text


def _p_value(row: Any) -> str:
    value = row["mcnemar"]
    return "" if math.isnan(value) else "< 0.001" if value < 0.001 else f"{value:.3f}"


def _word(name: str) -> Callable[[Any], str]:
    return lambda row: str(row[name])


def _kind(row: Any) -> str:
    return f"{row['kind']}{' †' if row['changed'] else ''}"


_MEANINGS = {
    "Rank": "One plus the number of rows of the same table whose 95% interval lies above this one's: overlapping "
    "intervals are ties. A single run has no rank.",
    "Convolution": "† A run's source was not a clean commit. A peer is no convolution: its model says what it is.",
    "Kernel": "Pixels a side of the layer's kernel.",
    "Test top-1, %": "Accuracy on the test split in evaluation mode, mean ± sample standard deviation over seeds.",
    "Test PSNR, dB": "Peak signal-to-noise ratio of the restored test images, mean ± sample standard deviation over "
    "seeds.",
    "95% interval": "Of the mean over seeds of what is ranked: percentile bootstrap. With few seeds it is too narrow.",
    "Against standard": "More than the standard convolution in the same setting, paired by seed: points or dB.",
    "Its interval": "95% bootstrap interval of that mean.",
    "McNemar p": "Exact McNemar test against the standard convolution on the same test images; the largest p-value of "
    "the seeds.",
    "Gap, points": "Generalization gap: training minus test top-1 accuracy, both in evaluation mode and without "
    "augmentation.",
    "Gap δ": "Generalization gap: (test - train) / train of the mean squared error.",
    "Test MSE, 1e-3": "Mean squared error of pixels in [0, 1].",
    "MSE as published, 1e-4": "The error as the metric-convolution paper adds it up: means over batches, over the "
    "number of images; a batch's size smaller than the true one.",
    "Corrupted, %": "Mean test top-1 under noise, blur, rotation and scaling.",
    "Calibration error, %": "Expected calibration error on the test split, 15 bins.",
    "Published, %": "Test top-1 that the paper publishes for this protocol: not measured here.",
    "Published MSE, 1e-4": "What the paper publishes for this protocol, on its own scale: not measured here.",
    "Heads, k": "Parameters of the convolutions that predict where a layer samples, or of the sampling itself; part of "
    "the total.",
    "MFLOPs": "Of one image's forward pass, two for each multiply-add of a convolution or product; interpolation is "
    "not counted.",
    "Inference, img/s": "Median, on one process.",
    "Training, img/s": "Of whole training steps; median, on one process.",
    "Latency, ms": "Median of one image's forward pass.",
    "Points per GFLOP": "Test top-1 over GFLOPs.",
    "Points per ms": "Test top-1 over latency.",
    "Peak memory, MiB": "Of the device while training, or of the whole process where there is no accelerator.",
}

_LABELS, _IMAGES = "classification", "denoising"
COLUMNS = (
    Column("rank", "Rank", _number("rank", 0)),
    Column("model", "Model", _word("model"), numeric=False),
    Column("kernel_size", "Kernel", _number("kernel_size", 0)),
    Column("kind", "Convolution", _kind, numeric=False),
    Column("options", "Options", _word("options"), numeric=False),
    Column("test_top1", "Test top-1, %", _spread("test_top1"), task=_LABELS),
    Column("test_top1", "95% interval", _interval("test_top1"), order="test_top1_low", task=_LABELS),
    Column("test_psnr", "Test PSNR, dB", _spread("test_psnr"), task=_IMAGES),
    Column("test_psnr", "95% interval", _interval("test_psnr"), order="test_psnr_low", task=_IMAGES),
    Column("difference", "Against standard", _number("difference", 2, sign="+")),
    Column("difference", "Its interval", _interval("difference"), order="difference_low"),
    Column("mcnemar", "McNemar p", _p_value),
    Column("generalization_gap", "Gap, points", _spread("generalization_gap"), task=_LABELS),
    Column("generalization_gap", "Gap δ", _spread("generalization_gap"), task=_IMAGES),
    Column("test_mse", "Test MSE, 1e-3", _number("test_mse", 3, 1e3)),
    Column("train_mse", "Training MSE, 1e-3", _number("train_mse", 3, 1e3)),
    Column("test_ssim", "Test SSIM", _number("test_ssim", 3)),
    Column("published_mse", "MSE as published, 1e-4", _number("published_mse", 3, 1e4)),
    Column("robustness", "Corrupted, %", _spread("robustness")),
    Column("calibration_error", "Calibration error, %", _number("calibration_error", 2)),
    Column("published", "Published, %", _spread("published"), task=_LABELS),
    Column("published", "Published MSE, 1e-4", _spread("published"), task=_IMAGES),
    Column("published_difference", "Against published", _number("published_difference", 2, sign="+")),
    Column("runs", "Seeds", _number("runs", 0)),
    Column("parameters", "Parameters, k", _number("parameters", 1, 1e-3)),
    Column("heads", "Heads, k", _number("heads", 1, 1e-3)),
    Column("gflops", "MFLOPs", _number("gflops", 1, 1e3)),
    Column("inference", "Inference, img/s", _number("inference", 0)),
    Column("training", "Training, img/s", _number("training", 0)),
    Column("latency_ms", "Latency, ms", _number("latency_ms", 2)),
    Column("per_gflop", "Points per GFLOP", _number("per_gflop", 1)),
    Column("per_ms", "Points per ms", _number("per_ms", 1)),
    Column("peak_memory_mib", "Peak memory, MiB", _number("peak_memory_mib", 0)),
    Column("weights", "Start", _word("weights"), numeric=False),
    Column("architecture", "Architecture", _word("architecture"), numeric=False),
)


def score_text(row: Any) -> str:
    """What a row is ranked by, with its unit."""
    return f"{row['test_psnr']:.2f} dB" if pd.isna(row["test_top1"]) else f"{row['test_top1']:.2f}%"


_GROUP = ("task", "dataset", "version", "protocol", "setting")


@dataclass(frozen=True)
class Group:
    """Rows that may be compared: the same task, data, protocol, hardware and precision."""

    id: str
    task: str
    dataset: str
    version: str
    protocol: str
    setting: str
    rows: pd.DataFrame

    title: str
    """Of its own among the groups of a board: ``fashion-mnist, recipe fashion-mnist-small, on 1 x AMD EPYC``."""


def groups_of(board: pd.DataFrame) -> list[Group]:
    """In the order of the board."""
    found, titles = [], set()
    if board.empty:
        return found
    for identity, rows in board.groupby("group", sort=False):
        words = {name: str(rows[name].iloc[0]) for name in _GROUP}
        recipes = ", ".join(sorted(set(rows["recipe"])))
        title = f"{words['dataset']}, recipe {recipes}, on {words['setting']}"
        title += f" ({identity})" if title in titles else ""
        titles.add(title)
        found.append(Group(identity, rows=rows, title=title, **words))
    return found


def shown_columns(board: pd.DataFrame) -> list[Column]:
    """The columns that say something about at least one row."""
    rows = board.to_dict("records")
    return [column for column in COLUMNS if any(column.shown(row) for row in rows)]


def to_csv(board: pd.DataFrame) -> str:
    """All columns at full precision. Text that a spreadsheet would run as a formula is quoted by an apostrophe."""
    flat = _flat(board)
    text = flat.select_dtypes(exclude=["number", "bool"]).columns
    return flat.assign(**{name: flat[name].map(no_formula) for name in text}).to_csv(index=False)


def to_parquet(board: pd.DataFrame) -> bytes:
    """The same columns."""
    buffer = io.BytesIO()
    _flat(board).to_parquet(buffer, index=False)
    return buffer.getvalue()


def to_json(board: pd.DataFrame) -> str:
    """A list of rows; what is not known is null."""
    rows = board.astype(object).where(board.notna(), None).to_dict("records")
    return json.dumps(rows, indent=1, default=lambda value: value.item(), allow_nan=False) + "\n"


def to_markdown(board: pd.DataFrame) -> str:
    """A table for every group: the columns a reader compares, rounded."""
    parts = []
    for group in groups_of(board):
        headings, rows, numeric = _cells(group)
        parts.append(
            f"## {plain(group.title)}\n\nProtocol: {plain(group.protocol)}\n\n{markdown(headings, rows, numeric)}"
        )
    return "\n".join(parts)


def to_latex(board: pd.DataFrame) -> str:
    r"""A table for every group, for ``\usepackage{booktabs}``."""
    return "\n".join(_latex_tables(board))


def _latex_tables(board: pd.DataFrame) -> Iterator[str]:
    for group in groups_of(board):
        headings, rows, numeric = _cells(group)
        escaped = [[latex(cell) for cell in row] for row in rows]
        styler = pd.DataFrame(escaped, columns=[latex(heading) for heading in headings]).style.hide(axis="index")
        yield styler.to_latex(
            hrules=True,
            column_format="".join("r" if right else "l" for right in numeric),
            caption=latex(f"{group.title}. {group.protocol}"),
            position="t",
            position_float="centering",
        )


def _cells(group: Group) -> tuple[list[str], list[list[str]], list[bool]]:
    columns = shown_columns(group.rows)
    rows = [[column.shown(row) for column in columns] for row in group.rows.to_dict("records")]
    return [column.heading for column in columns], rows, [column.numeric for column in columns]


def _flat(board: pd.DataFrame) -> pd.DataFrame:
    """Lists as text."""
    lists = {name: board[name].map(lambda values: " ".join(map(str, values))) for name in ("seeds", "ids")}
    return board.assign(**lists)


_PLAIN_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)
_UNSEEN = ("Cc", "Cf", "Mn", "Me", "Zs", "Zl", "Zp")
_FILLERS = "\u115f\u1160\u3164\uffa0"
"""Letters of Hangul that nobody sees either."""


def no_formula(value: Any) -> Any:
    """A cell of a CSV file that no spreadsheet runs: an apostrophe stands before text that begins with a sign, also
    with a full-width one or behind what cannot be seen. Numbers stay numbers."""
    if not isinstance(value, str) or _PLAIN_NUMBER.fullmatch(value):
        return value
    return f"'{value}" if value.startswith(("\t", "\r", "\n")) or _first_sign(value) in _SIGNS else value


_SIGNS = ("=", "+", "-", "@", "\u2212")
"""The last is the minus of mathematics."""


def _first_sign(text: str) -> str:
    """The first character that is seen, as a spreadsheet that normalises width and style reads it."""
    seen = (c for c in text if unicodedata.category(c) not in _UNSEEN and c not in _FILLERS)
    return unicodedata.normalize("NFKC", next(seen, " "))[0]


_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", "±": r"$\pm$", "†": r"$\dagger$",
}  # fmt: skip


def latex(text: str) -> str:
    """Text that LaTeX prints as it is, on one line; control characters are left out."""
    escaped = "".join(_LATEX.get(c, c) for c in " ".join(text.split()) if c.isprintable())
    # At the beginning of a row a bracket or a star would be an argument of the line before.
    return f"{{}}{escaped}" if escaped[:1] in ("[", "*") else escaped
