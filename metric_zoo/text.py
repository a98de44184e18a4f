"""Text for a reader."""

from __future__ import annotations

from collections.abc import Sequence


def columns(rows: Sequence[Sequence[str]]) -> str:
    """Lines of aligned columns, two blanks apart; every row has the same number of cells."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)


def size(shape: Sequence[int] | None) -> str:
    """``(64, 56, 56) -> "64x56x56"``; an unknown shape is an empty text."""
    return "" if shape is None else "x".join(map(str, shape))
