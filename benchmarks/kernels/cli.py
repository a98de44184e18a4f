"""``metric-zoo kernels``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, help="Measure sparse kernel complexes in place of dense kernels.")


@app.callback()
def _kernels() -> None:
    """Measure sparse kernel complexes in place of dense kernels."""


@app.command()
def bench(
    out: Annotated[Path, typer.Option(help="Write kernels.md and kernels.json to this folder.")] = Path(
        "build/kernels"
    ),
    steps: Annotated[int, typer.Option(help="Fit with so many steps.")] = 1000,
    tempering: Annotated[
        int, typer.Option(min=0, help="Run so many iterations of each chain of tempering; 0 leaves it out.")
    ] = 10_000,
    repeats: Annotated[int, typer.Option(help="Time everything so many times, alternating.")] = 7,
    only: Annotated[str, typer.Option(help="Take only the targets and effects whose name contains this text.")] = "",
) -> None:
    """Approximate kernels, filter photographs, and time both, beside low-rank, tempered and dense filters."""
    from metric_zoo.benchmarks.kernels.run import MARKDOWN, bench_kernels

    typer.echo(bench_kernels(out, steps, tempering, repeats, only))
    typer.echo(f"table: {out / MARKDOWN}")
