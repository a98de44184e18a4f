"""The columns of a leaderboard's tables: what every task has, and what a row's own task declares."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pandas as pd

from metric_zoo.benchmarks.tasks import Task, get_task


@dataclass(frozen=True)
class Column:
    """How a column is shown: its heading, unit included, the text of a row, what else than ``name`` sorts it, and what
    it means, for who reads the heading and wonders."""

    name: str
    heading: str
    text: Callable[[Any], str]
    numeric: bool = True
    order: str = ""
    meaning: str = ""

    def key(self, row: Any) -> Any:
        """What rows are sorted by; None where there is nothing."""
        value = row[self.order or self.name]
        return None if pd.isna(value) else value


def number(value: float, digits: int, sign: str = "") -> str:
    """With a fixed number of decimals where a cell has room for it."""
    return f"{value:{sign},.{digits}f}" if abs(value) < 1e12 else f"{value:{sign}.3e}"


def _number(name: str, digits: int, scale: float = 1.0, sign: str = "") -> Callable[[Any], str]:
    return lambda row: "" if pd.isna(row[name]) else number(row[name] * scale, digits, sign)


def _spread(name: str, digits: int = 2, scale: float = 1.0) -> Callable[[Any], str]:
    def text(row: Any) -> str:
        deviation = row[f"{name}_std"]
        if pd.isna(row[name]):
            return ""
        around = "" if pd.isna(deviation) else f" ± {number(deviation * scale, digits)}"
        return number(row[name] * scale, digits) + around

    return text


def _interval(name: str, digits: int = 2) -> Callable[[Any], str]:
    def text(row: Any) -> str:
        low, high = row[f"{name}_low"], row[f"{name}_high"]
        return "" if pd.isna(low) else f"{number(low, digits)} to {number(high, digits)}"

    return text


def _p_value(row: Any) -> str:
    value = row["mcnemar"]
    return "" if math.isnan(value) else "< 0.001" if value < 0.001 else f"{value:.3f}"


def _word(name: str) -> Callable[[Any], str]:
    return lambda row: str(row[name])


def _kind(row: Any) -> str:
    return f"{row['kind']}{' †' if row['changed'] else ''}"


_FIRST = (
    Column("model", "Model", _word("model"), numeric=False),
    Column("kernel_size", "Kernel", _number("kernel_size", 0), meaning="Pixels a side of the layer's kernel."),
    Column(
        "kind",
        "Convolution",
        _kind,
        numeric=False,
        meaning="† A run's source was not a clean commit. A peer is no convolution: its model says what it is.",
    ),
    Column("options", "Options", _word("options"), numeric=False),
)
_MCNEMAR = Column(
    "mcnemar",
    "McNemar p",
    _p_value,
    meaning="Exact McNemar test against the standard convolution on the same test images; the largest p-value of the "
    "seeds.",
)
_COSTS = (
    Column("runs", "Seeds", _number("runs", 0)),
    Column("parameters", "Parameters, k", _number("parameters", 1, 1e-3)),
    Column(
        "heads",
        "Heads, k",
        _number("heads", 1, 1e-3),
        meaning="Parameters of the convolutions that predict where a layer samples, or of the sampling itself; part of "
        "the total.",
    ),
    Column(
        "gflops",
        "MFLOPs",
        _number("gflops", 1, 1e3),
        meaning="Of one image's forward pass, two for each multiply-add of a convolution or product; interpolation is "
        "not counted.",
    ),
    Column("inference", "Inference, img/s", _number("inference", 0), meaning="Median, on one process."),
    Column(
        "training",
        "Training, img/s",
        _number("training", 0),
        meaning="Of whole training steps; median, on one process.",
    ),
    Column("latency_ms", "Latency, ms", _number("latency_ms", 2), meaning="Median of one image's forward pass."),
)
_LAST = (
    Column(
        "peak_memory_mib",
        "Peak memory, MiB",
        _number("peak_memory_mib", 0),
        meaning="Of the device while training, or of the whole process where there is no accelerator.",
    ),
    Column("weights", "Start", _word("weights"), numeric=False),
    Column("architecture", "Architecture", _word("architecture"), numeric=False),
)


def columns_of(name: str) -> tuple[Column, ...]:
    """Of the rows of a task, in their order."""
    task = get_task(name)
    return (
        _rank(task),
        *_FIRST,
        *_score(task),
        *_difference(task),
        _MCNEMAR,
        *_gap(task),
        *_further(task),
        *_published(task),
        *_COSTS,
        *_ratios(task),
        *_LAST,
    )


def _rank(task: Task) -> Column:
    side = "above" if task.main.higher else "below"
    meaning = (
        f"One plus the number of rows of the same table whose 95% interval lies {side} this one's: overlapping "
        "intervals are ties. A single run has no rank."
    )
    return Column("rank", "Rank", _number("rank", 0), meaning=meaning)


def _score(task: Task) -> tuple[Column, ...]:
    name, digits = task.main.name, task.main.digits
    about = "Of the mean over seeds of what is ranked: percentile bootstrap. With few seeds it is too narrow."
    return (
        Column(name, task.main.heading, _spread(name, digits), meaning=task.main.meaning),
        Column(name, "95% interval", _interval(name, digits), order=f"{name}_low", meaning=about),
    )


def _difference(task: Task) -> tuple[Column, ...]:
    digits, step = task.main.digits, task.main.step or task.main.unit
    about = "More than the standard convolution in the same setting, paired by seed"
    about += f": {step}." if step else "."
    about_interval = "95% bootstrap interval of that mean."
    return (
        Column("difference", "Against standard", _number("difference", digits, sign="+"), meaning=about),
        Column(
            "difference",
            "Its interval",
            _interval("difference", digits),
            order="difference_low",
            meaning=about_interval,
        ),
    )


def _gap(task: Task) -> tuple[Column, ...]:
    if task.gap is None:
        return ()
    name = "generalization_gap"
    return (Column(name, task.gap.heading, _spread(name), meaning=task.gap.meaning),)


def _further(task: Task) -> tuple[Column, ...]:
    return tuple(
        Column(
            figure.name,
            figure.heading,
            (_spread if figure.has_spread else _number)(figure.name, figure.digits, figure.scale),
            meaning=figure.meaning,
        )
        for figure in task.figures
        if figure.heading
    )


def _published(task: Task) -> tuple[Column, ...]:
    if task.published is None:
        return ()
    against = _number("published_difference", 2, sign="+")
    return (
        Column("published", task.published.heading, _spread("published"), meaning=task.published.meaning),
        Column("published_difference", "Against published", against),
    )


def _ratios(task: Task) -> tuple[Column, ...]:
    per, title = task.main.per, task.main.title
    if not per:
        return ()
    return (
        Column("per_gflop", f"{per} per GFLOP", _number("per_gflop", 1), meaning=f"{title} over GFLOPs."),
        Column("per_ms", f"{per} per ms", _number("per_ms", 1), meaning=f"{title} over latency."),
    )


def score_text(row: Any) -> str:
    """What a row is ranked by, with its unit."""
    score = get_task(row["task"]).main
    return score.text(row[score.name])


def shown_columns(rows: pd.DataFrame) -> list[Column]:
    """The columns that say something about at least one of a task's rows."""
    told = rows.to_dict("records")
    return [column for column in columns_of(told[0]["task"]) if any(column.text(row) for row in told)]
