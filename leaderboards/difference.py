"""What changed from one folder of records to another."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from metric_zoo.benchmarks.tasks import tasks_for
from metric_zoo.leaderboards.collect import Collection, collect, shown
from metric_zoo.leaderboards.columns import number
from metric_zoo.leaderboards.statistics import leaderboard
from metric_zoo.text import columns

_SHOWN = ("dataset", "model", "kind", "options")


def difference(old: Path, new: Path) -> str:
    """A table of the cells that are new, gone, or have other runs or figures; a sentence where there are none.

    Raises:
        RecordError: if one of the folders holds no record.
    """
    before, after = (_cells(folder) for folder in (old, new))
    compared = _compared({row["task"] for row in (*before.values(), *after.values())})
    rows = [["", *_SHOWN, "runs", *compared]]
    for cell in sorted(before.keys() | after.keys(), key=lambda cell: _words(before.get(cell) or after[cell])):
        a, b, either = before.get(cell), after.get(cell), before.get(cell) or after[cell]
        if a is None or b is None:
            rows.append(["new" if a is None else "gone", *_words(either), *_figures(either, compared)])
            continue
        ours, theirs = _figures(a, compared), _figures(b, compared)
        if a["ids"] != b["ids"] or ours != theirs:
            pairs = zip(ours, theirs, strict=True)
            rows.append(["changed", *_words(a), *(y if x == y else f"{x} -> {y}" for x, y in pairs)])
    if len(rows) == 1:
        return "no difference"
    return columns(rows)


def _cells(folder: Path) -> dict[str, dict]:
    rows, _ = shown(collect(folder), _rows)
    return {row["cell"]: row for row in rows}


def _rows(collection: Collection) -> list[dict]:
    return leaderboard(collection.records).to_dict("records")


def _words(row: dict) -> list[str]:
    return [str(row[name]) for name in _SHOWN]


def _compared(tasks: set[str]) -> dict[str, int]:
    """Columns and their decimals: the main scores, what all have, and what it cost."""
    scores = {task.main.name: task.main.digits for task in tasks_for(tasks)}
    return {**scores, "generalization_gap": 2, "inference": 0, "training": 0}


def _figures(row: dict, compared: dict[str, int]) -> list[str]:
    figures = ("" if bool(pd.isna(row.get(name))) else number(row[name], digits) for name, digits in compared.items())
    return [str(row["runs"]), *figures]
