"""What a page shows: boards of tables of rows of cells. All of it is text yet to be escaped."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from metric_zoo.benchmarks.tasks import get_task
from metric_zoo.benchmarks.tasks.registry import all_tasks
from metric_zoo.leaderboards.columns import Column, shown_columns
from metric_zoo.leaderboards.plots import PLOTS, Plot
from metric_zoo.leaderboards.tables import Group, groups_of

MEASURED = ("kernels", "operators", "conversion")
"""Boards of what is measured without training: their names."""


def trained_boards() -> dict[str, str]:
    """Boards of what is trained: their names and titles. Tasks may share one, which the first of them names."""
    found: dict[str, str] = {}
    for task in all_tasks():
        found.setdefault(task.page, task.label)
    return found


@dataclass(frozen=True)
class Heading:
    """Of a column."""

    text: str
    numeric: bool
    meaning: str = ""


@dataclass(frozen=True)
class Cell:
    """Its text, what it is sorted by (None: the text), and where it leads."""

    text: str
    order: Any = None
    href: str | None = None


@dataclass(frozen=True)
class Row:
    """Cells, and by which values they are filtered."""

    cells: list[Cell]
    filters: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Table:
    """Rows that may be compared, and by which values all of them are filtered."""

    title: str
    note: str
    headings: list[Heading]
    rows: list[Row]
    filters: dict[str, str] = field(default_factory=dict)
    plots: dict[str, str] = field(default_factory=dict)
    """Pictures: what they show, by path from the site's root."""


@dataclass(frozen=True)
class Board:
    """A page: its file's name, its title, a sentence about it, and its tables."""

    name: str
    title: str
    about: str
    tables: list[Table]
    notes: str = ""
    """What whoever publishes the board has to say about it."""

    @property
    def filters(self) -> dict[str, list[str]]:
        """The values of every filter that can tell rows apart."""
        found: dict[str, set[str]] = {}
        for table in self.tables:
            for row in table.rows:
                for name, value in {**table.filters, **row.filters}.items():
                    found.setdefault(name, set()).add(value)
        return {name: sorted(values) for name, values in found.items() if len(values) > 1}

    @property
    def headings(self) -> list[Heading]:
        """Of all tables, each once."""
        return list({heading.text: heading for table in self.tables for heading in table.headings}.values())


def task_boards(board: pd.DataFrame, notes: Mapping[str, str]) -> list[Board]:
    """A board for every kind of task that a leaderboard has rows of, with a table for every group of them."""
    about = (
        "Rows of a table share data, protocol, hardware and precision; speed is never compared across tables. "
        "Click a heading to sort, a convolution to see its runs."
    )
    groups = groups_of(board)
    boards = []
    for name, title in trained_boards().items():
        tables = [table_of(group, pictures_of(group)) for group in groups if board_of(group) == name]
        if tables:
            boards.append(Board(name, title, about, tables, notes.get(name, "")))
    return boards


def board_of(group: Group) -> str:
    """The name of the board that a group is shown on."""
    return get_task(group.task).page


def plots_of(group: Group) -> dict[str, Plot]:
    """The pictures of a group, by path from the site's root."""
    return {f"plots/{group.id}{plot.suffix}.svg": plot for plot in PLOTS if plot.fits(group.rows)}


def pictures_of(group: Group) -> dict[str, str]:
    """What they show."""
    return {path: plot.shows(get_task(group.task)) for path, plot in plots_of(group).items()}


def table_of(group: Group, plots: Mapping[str, str] | None = None) -> Table:
    """A group's rows."""
    columns = shown_columns(group.rows)
    rows = [
        Row([_cell(column, row) for column in columns], {"model": row["model"], "kind": row["kind"]})
        for row in group.rows.to_dict("records")
    ]
    filters = {"dataset": group.dataset, "hardware": group.rows["hardware"].iloc[0]}
    filters["precision"] = group.rows["precision"].iloc[0]
    headings = [Heading(column.heading, column.numeric, column.meaning) for column in columns]
    note = f"Data version {group.version}. {group.protocol}"
    return Table(group.title, note, headings, rows, filters, dict(plots or {}))


def _cell(column: Column, row: dict[str, Any]) -> Cell:
    href = None
    if column.name == "model":
        href = model_path(row["model"])
    elif column.name == "kind":
        href = f"{model_path(row['model'])}#{row['cell']}"
    return Cell(column.text(row), column.key(row) if column.numeric else None, href)


def model_path(model: str) -> str:
    """Where a model's page lies, from the site's root: readable, and the model's own whatever its name holds."""
    words = re.sub(r"[^a-z0-9]+", "-", model.lower()).strip("-")[:60]
    return f"models/{words}-{hashlib.sha256(model.encode()).hexdigest()[:16]}.html"


def run_path(run: str) -> str:
    """Where a run's page lies, from the site's root."""
    return f"runs/{run}.html"
