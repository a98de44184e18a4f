"""The leaderboard as CSV, Parquet, JSON, Markdown and LaTeX."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass

import pandas as pd

from metric_zoo.leaderboards.columns import shown_columns
from metric_zoo.leaderboards.escaping import latex, no_formula
from metric_zoo.text import markdown, plain

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
        found.append(Group(str(identity), rows=rows, title=title, **words))
    return found


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
    rows = [[column.text(row) for column in columns] for row in group.rows.to_dict("records")]
    return [column.heading for column in columns], rows, [column.numeric for column in columns]


def _flat(board: pd.DataFrame) -> pd.DataFrame:
    """Lists as text."""
    lists = {name: board[name].map(lambda values: " ".join(map(str, values))) for name in ("seeds", "ids")}
    return board.assign(**lists)
