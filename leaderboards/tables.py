"""The leaderboard as CSV and Markdown."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pandas as pd

from metric_zoo.text import markdown


@dataclass(frozen=True)
class Column:
    """How a column is shown: its heading, unit included, and the text of a row."""

    name: str
    heading: str
    text: Callable[[Any], str]
    numeric: bool = True


def _number(name: str, digits: int, scale: float = 1.0) -> Callable[[Any], str]:
    return lambda row: "" if pd.isna(row[name]) else f"{row[name] * scale:,.{digits}f}"


def _spread(name: str) -> Callable[[Any], str]:
    def text(row: Any) -> str:
        deviation = row[f"{name}_std"]
        return f"{row[name]:.2f}" + ("" if math.isnan(deviation) else f" ± {deviation:.2f}")

    return text


def _word(name: str) -> Callable[[Any], str]:
    return lambda row: str(row[name])


COLUMNS = (
    Column("dataset", "Data", _word("dataset"), numeric=False),
    Column("model", "Model", _word("model"), numeric=False),
    Column("kind", "Convolution", _word("kind"), numeric=False),
    Column("options", "Options", _word("options"), numeric=False),
    Column("test_top1", "Test top-1, %", _spread("test_top1")),
    Column("generalization_gap", "Gap, points", _spread("generalization_gap")),
    Column("runs", "Seeds", _number("runs", 0)),
    Column("parameters", "Parameters, k", _number("parameters", 1, 1e-3)),
    Column("heads", "Heads, k", _number("heads", 1, 1e-3)),
    Column("gflops", "MFLOPs", _number("gflops", 1, 1e3)),
    Column("inference", "Inference, img/s", _number("inference", 0)),
    Column("training", "Training, img/s", _number("training", 0)),
    Column("latency_ms", "Latency, ms", _number("latency_ms", 2)),
    Column("peak_memory_mib", "Peak memory, MiB", _number("peak_memory_mib", 0)),
    Column("weights", "Start", _word("weights"), numeric=False),
    Column("architecture", "Architecture", _word("architecture"), numeric=False),
    Column("hardware", "Hardware", _word("hardware"), numeric=False),
    Column("protocol", "Protocol", _word("protocol"), numeric=False),
)


def shown_columns(board: pd.DataFrame) -> list[Column]:
    """The columns that say something about at least one row."""
    return [column for column in COLUMNS if any(column.text(row) for _, row in board.iterrows())]


def to_csv(board: pd.DataFrame) -> str:
    """All columns at full precision. Text that a spreadsheet would run as a formula is quoted by an apostrophe."""
    text = board.select_dtypes(exclude="number").columns
    return board.assign(**{name: board[name].map(_no_formula) for name in text}).to_csv(index=False)


def to_markdown(board: pd.DataFrame) -> str:
    """The columns a reader compares, rounded."""
    columns = shown_columns(board)
    rows = ([column.text(row) for column in columns] for _, row in board.iterrows())
    return markdown([column.heading for column in columns], rows, [column.numeric for column in columns])


def _no_formula(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r") else value
