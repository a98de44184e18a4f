"""Text for a reader."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def utf8(text: object) -> str:
    """A text that can be written anywhere: what stands for bytes of a file's name that are not UTF-8 is spelled out."""
    return str(text).encode("utf-8", "backslashreplace").decode("utf-8")


def beginning(text: str, most: int) -> str:
    """At most so many characters of a text, in `utf8`."""
    return utf8(text[:most])[:most]


def told(error: BaseException) -> str:
    """The first line of what an error says; its class where it says nothing."""
    reason = getattr(error, "strerror", None) or str(error)
    return utf8(reason.strip().splitlines()[0] if reason.strip() else type(error).__name__)


def columns(rows: Sequence[Sequence[str]]) -> str:
    """Lines of aligned columns, two blanks apart; every row has the same number of cells."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)


def size(shape: Sequence[int] | None) -> str:
    """``(64, 56, 56) -> "64x56x56"``; an unknown shape is an empty text."""
    return "" if shape is None else "x".join(map(str, shape))


def markdown(headings: Sequence[str], rows: Iterable[Iterable[str]], numeric: Sequence[bool]) -> str:
    """A Markdown table; numeric columns are aligned right."""
    lines = [_row(headings), "|" + "|".join("---:" if right else "---" for right in numeric) + "|"]
    return "\n".join([*lines, *map(_row, rows)]) + "\n"


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(map(plain, cells)) + " |"


def plain(cell: str) -> str:
    """Markdown's and HTML's special characters escaped, on one line; a URL is no link."""
    for character in "\\|<>`*_[]~#$!&@":
        cell = cell.replace(character, f"\\{character}")
    return " ".join(cell.replace("://", "\\://").replace("www.", "www\\.").split())
