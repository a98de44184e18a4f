"""Render the leaderboard as one HTML file that opens from disk and fetches nothing."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

import jinja2
import pandas as pd
from markupsafe import Markup

from metric_zoo.benchmarks.record import Record
from metric_zoo.leaderboards.tables import shown_columns

_HERE = Path(__file__).parent
_STYLES = ("vendor/dataTables.dataTables.min.css", "page.css")
_SCRIPTS = ("vendor/dataTables.min.js", "page.js")


def render(board: pd.DataFrame, records: list[Record]) -> str:
    """The page's HTML. Everything that comes from a record is escaped.

    Args:
        board: from `leaderboard`, one row per configuration.
        records: all, for the counts and the failures.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    scripts = [_asset(name) for name in _SCRIPTS]
    columns = shown_columns(board)
    rows = [
        [{"text": column.text(row), "order": row[column.name], "column": column} for column in columns]
        for _, row in board.iterrows()
    ]
    return environment.get_template("page.html").render(
        columns=columns,
        rows=rows,
        # Our own files, not a record's: the only text that is not escaped.
        styles=[Markup(_asset(name)) for name in _STYLES],
        scripts=[Markup(script) for script in scripts],
        script_hashes=" ".join(f"'sha256-{_hash(script)}'" for script in scripts),
        runs=sum(record.status == "ok" for record in records),
        failed=[record for record in records if record.status == "failed"],
        newest=max(record.provenance.finished for record in records),
    )


def _asset(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8")


def _hash(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
