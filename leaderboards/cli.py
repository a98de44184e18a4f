"""``metric-zoo leaderboard``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, help="Tables and a page from records.")


@app.callback()
def _leaderboard() -> None:
    """Tables and a page from records."""


@app.command()
def build(
    records: Annotated[Path, typer.Argument(help="Folder of records.")],
    out: Annotated[Path, typer.Option(help="Folder for leaderboard.csv, leaderboard.md and index.html.")],
) -> None:
    """Build leaderboard.csv, leaderboard.md and a self-contained index.html."""
    from metric_zoo.leaderboards.build import build as build_leaderboard

    board = build_leaderboard(records, out)
    typer.echo(f"{len(board)} configurations; open {out / 'index.html'}")
