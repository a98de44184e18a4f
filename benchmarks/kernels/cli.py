"""``metric-zoo kernels``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, help="Sparse kernel complexes in place of dense kernels.")


@app.callback()
def _kernels() -> None:
    """Sparse kernel complexes in place of dense kernels."""


@app.command()
def bench(
    out: Annotated[Path, typer.Option(help="Folder of kernels.md and kernels.json.")] = Path("build/kernels"),
    steps: Annotated[int, typer.Option(help="Of a fit.")] = 1000,
    tempering: Annotated[
        int, typer.Option(min=0, help="Iterations of each chain of tempering; 0 leaves it out.")
    ] = 10_000,
    repeats: Annotated[int, typer.Option(help="Of every timing, alternating.")] = 7,
    only: Annotated[str, typer.Option(help="Targets and effects whose name contains this.")] = "",
) -> None:
    """Approximate kernels, filter photographs, and time both, beside low-rank, tempered and dense filters."""
    from metric_zoo.benchmarks.kernels.run import MARKDOWN, bench_kernels

    typer.echo(bench_kernels(out, steps, tempering, repeats, only))
    typer.echo(f"table: {out / MARKDOWN}")
