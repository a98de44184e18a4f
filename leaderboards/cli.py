"""``metric-zoo leaderboard``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from metric_zoo.leaderboards.site.views import Board

app = typer.Typer(no_args_is_help=True, help="Tables and a site from records.")

Records = Annotated[Path, typer.Argument(help="Folder of records.")]
Strict = Annotated[bool, typer.Option("--strict", help="Exit code 1 if a file had to be left out.")]
Operators = Annotated[
    Path | None, typer.Option(help="operators.json of 'metric-zoo ops bench', for a board of its own.")
]
Kernels = Annotated[
    Path | None, typer.Option(help="kernels.json of 'metric-zoo kernels bench', for a board of its own.")
]
Conversion = Annotated[
    Path | None, typer.Option(help="conversion.csv of 'metric-zoo conversion sweep', for a board of its own.")
]


@app.callback()
def _leaderboard() -> None:
    """Tables and a site from records."""


@app.command()
def build(
    records: Records,
    out: Annotated[Path, typer.Option(help="Folder of the leaderboard; an older one is replaced.")],
    kernels: Kernels = None,
    operators: Operators = None,
    conversion: Conversion = None,
    strict: Strict = False,
) -> None:
    """Build tables (CSV, Parquet, JSON, Markdown, LaTeX) and a site that opens from disk."""
    _build(records, out, _boards(kernels, operators, conversion), strict, {})


@app.command()
def publish(
    records: Records,
    to: Annotated[Path, typer.Option(help="Folder for a static host; an older one is replaced.")],
    kernels: Kernels = None,
    operators: Operators = None,
    conversion: Conversion = None,
    strict: Strict = False,
) -> None:
    """Build a folder that any static host can serve as it is."""
    # Hosts that run Jekyll would otherwise leave files out.
    _build(records, to, _boards(kernels, operators, conversion), strict, {".nojekyll": ""})


def _boards(kernels: Path | None, operators: Path | None, conversion: Path | None) -> list[Board]:
    """Of what is measured without training."""
    from metric_zoo.leaderboards.site import measurements
    from metric_zoo.leaderboards.site.kernels import kernels as kernel_board

    readers = {kernel_board: kernels, measurements.operators: operators, measurements.conversion: conversion}
    return [read(path) for read, path in readers.items() if path]


def _build(records: Path, out: Path, more: list[Board], strict: bool, extra: dict[str, str]) -> None:
    from metric_zoo.leaderboards.build import build as build_leaderboard

    built = build_leaderboard(records, out, more, extra)
    typer.echo(f"{len(built.board)} configurations; open {out / 'index.html'}")
    _report([f"{problem.file} left out: {problem.reason}" for problem in built.collection.problems], strict)


@app.command()
def check(records: Records) -> None:
    """Read every record of a folder and say which cannot be true; exit code 1 if there is one."""
    from metric_zoo.leaderboards.collect import collect, shown
    from metric_zoo.leaderboards.statistics import leaderboard

    _, found = shown(collect(records), lambda some: leaderboard(some.records))
    problems = [f"{problem.file}: {problem.reason}" for problem in found.problems]
    typer.echo(f"{len(found.records)} records, {len(problems)} problems")
    _report(problems, strict=True)


@app.command()
def diff(
    old: Annotated[Path, typer.Argument(help="Folder of records.")],
    new: Annotated[Path, typer.Argument(help="Folder of records.")],
) -> None:
    """What changed from one folder of records to another."""
    from metric_zoo.leaderboards.difference import difference

    typer.echo(difference(old, new))


@app.command()
def submit(
    records: Annotated[list[Path], typer.Argument(help="Records, JSON.")],
    to: Annotated[Path, typer.Option(help="Folder of results.")] = Path("leaderboards/results"),
    allow_changed: Annotated[
        bool,
        typer.Option("--allow-changed", help="Take records whose source was not a clean commit; boards mark them."),
    ] = False,
) -> None:
    """Check records, count their networks' parameters and GFLOPs again, and copy them; all of them or none."""
    from metric_zoo.leaderboards.submit import submit as submit_records

    new = submit_records(records, to, allow_changed)
    typer.echo(f"{len(new)} records are new in {to}, {len(records) - len(new)} were there")


def _report(problems: list[str], strict: bool) -> None:
    for problem in problems:
        print(problem, file=sys.stderr)
    if problems and strict:
        raise typer.Exit(1)
