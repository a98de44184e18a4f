"""What changed from one folder of records to another."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from metric_zoo.leaderboards.collect import Collection, collect, shown
from metric_zoo.leaderboards.statistics import leaderboard
from metric_zoo.leaderboards.tables import number
from metric_zoo.text import columns

_SHOWN = ("dataset", "model", "kind", "options")
_COMPARED = {"test_top1": 2, "test_psnr": 2, "generalization_gap": 2, "inference": 0, "training": 0}


def difference(old: Path, new: Path) -> str:
    """A table of the cells that are new, gone, or have other runs or figures; a sentence where there are none.

    Raises:
        RecordError: if one of the folders holds no record.
    """
    before, after = (_cells(folder) for folder in (old, new))
    rows = [["", *_SHOWN, "runs", *_COMPARED]]
    for cell in sorted(before.keys() | after.keys(), key=lambda cell: _words(before.get(cell) or after[cell])):
        a, b = before.get(cell), after.get(cell)
        if a is None or b is None:
            rows.append(["new" if a is None else "gone", *_words(b or a), *_figures(b or a)])
        elif a["ids"] != b["ids"] or _figures(a) != _figures(b):
            pairs = zip(_figures(a), _figures(b), strict=True)
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


def _figures(row: dict) -> list[str]:
    figures = ("" if pd.isna(row[name]) else number(row[name], digits) for name, digits in _COMPARED.items())
    return [str(row["runs"]), *figures]
