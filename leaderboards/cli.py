"""``metric-zoo leaderboard``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from metric_zoo.leaderboards.site.views import Board

app = typer.Typer(no_args_is_help=True, help="Build tables and a site from records, and take records in.")

Records = Annotated[Path, typer.Argument(help="Read the records of this folder, JSON or JSON lines.")]
Strict = Annotated[bool, typer.Option("--strict", help="End with exit code 1 if a file had to be left out.")]
Out = Annotated[Path, typer.Option(help="Write the board to this folder; an older board there is replaced.")]
Results = Annotated[Path, typer.Option(help="Add the records to this folder of results, to RECIPE.jsonl.")]
Operators = Annotated[Path | None, typer.Option(help="Add a board from this operators.json of 'metric-zoo ops bench'.")]
Kernels = Annotated[Path | None, typer.Option(help="Add a board from this kernels.json of 'metric-zoo kernels bench'.")]
Conversion = Annotated[
    Path | None, typer.Option(help="Add a board from this conversion.csv of 'metric-zoo conversion sweep'.")
]
Old = Annotated[Path | None, typer.Option("--to", hidden=True, help="Write to this folder: the old name of --out.")]

_OUT = Path("build/board")
_RESULTS = Path("leaderboards/results")


@app.callback()
def _leaderboard() -> None:
    """Build tables and a site from records, and take records in."""


@app.command()
def build(
    records: Records,
    out: Out = _OUT,
    kernels: Kernels = None,
    operators: Operators = None,
    conversion: Conversion = None,
    strict: Strict = False,
) -> None:
    """Build a board to read here: tables (CSV, Parquet, JSON, Markdown, LaTeX) and a site that opens from disk."""
    _build(records, out, _boards(kernels, operators, conversion), strict, {})


@app.command()
def publish(
    records: Records,
    out: Out = _OUT,
    kernels: Kernels = None,
    operators: Operators = None,
    conversion: Conversion = None,
    strict: Strict = False,
    to: Old = None,
) -> None:
    """Build the same board for a static host, which can serve the folder as it is; nothing is uploaded."""
    # Hosts that run Jekyll would otherwise leave files out.
    _build(records, _renamed(to, out), _boards(kernels, operators, conversion), strict, {".nojekyll": ""})


def _renamed(old: Path | None, out: Path) -> Path:
    """The folder to write to, whichever option named it."""
    if old is None:
        return out
    typer.echo("note: the folder's option is --out now; --to, which names a kind elsewhere, will go", err=True)
    return old


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
    """Check every record of a folder and say which cannot be true; exit code 1 if there is one."""
    from metric_zoo.leaderboards.collect import collect, shown
    from metric_zoo.leaderboards.statistics import leaderboard

    _, found = shown(collect(records), lambda some: leaderboard(some.records))
    problems = [f"{problem.file}: {problem.reason}" for problem in found.problems]
    typer.echo(f"{len(found.records)} records, {len(problems)} problems")
    _report(problems, strict=True)


@app.command()
def diff(
    old: Annotated[Path, typer.Argument(help="Read the records before from this folder.")],
    new: Annotated[Path, typer.Argument(help="Read the records after from this folder.")],
) -> None:
    """Show what changed from one folder of records to another."""
    from metric_zoo.leaderboards.difference import difference

    typer.echo(difference(old, new))


@app.command()
def submit(
    records: Annotated[list[Path], typer.Argument(help="Read these records: JSON, or JSON lines.")],
    out: Results = _RESULTS,
    allow_changed: Annotated[
        bool,
        typer.Option("--allow-changed", help="Take records whose source was not a clean commit; boards mark them."),
    ] = False,
    to: Old = None,
) -> None:
    """Add records to a board's results: check them, count parameters and GFLOPs again, and take all or none."""
    from metric_zoo.benchmarks.record_files import entries
    from metric_zoo.leaderboards.submit import submit as submit_records

    out = _renamed(to, out)
    new, given = submit_records(records, out, allow_changed), sum(len(entries(path)) for path in records)
    typer.echo(f"{len(new)} records are new in {out}, {given - len(new)} were there")


def _report(problems: list[str], strict: bool) -> None:
    for problem in problems:
        print(problem, file=sys.stderr)
    if problems and strict:
        raise typer.Exit(1)
