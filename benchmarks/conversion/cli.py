"""``metric-zoo conversion``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, help="Measure the promise that any model converts.")


@app.callback()
def _conversion() -> None:
    """Measure the promise that any model converts."""


@app.command()
def sweep(
    source: Annotated[list[str] | None, typer.Option(help="timm or torchvision; default: both.")] = None,
    to: Annotated[list[str] | None, typer.Option(help="A kind; may be given several times.")] = None,
    sample: Annotated[int | None, typer.Option(help="So many architectures, one of every family first.")] = None,
    out: Annotated[
        Path, typer.Option(help="Folder of the table, CSV and Markdown; what it knows is not computed again.")
    ] = Path("build/conversion"),
    jobs: Annotated[int | None, typer.Option(help="Workers, each on one thread; default: the processors.")] = None,
    timeout: Annotated[float, typer.Option(help="Seconds for one architecture.")] = 900.0,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Check again what did not pass before.")] = False,
    memory: Annotated[float | None, typer.Option(help="GiB for all workers; default: 3/4 of the machine's.")] = None,
) -> None:
    """Convert registered architectures to each kind and check the result; go on where an earlier sweep stopped.

    Exit code 1 if an architecture did not pass.
    """
    from metric_zoo.benchmarks.conversion.run import run_sweep

    frame = run_sweep(source, to, sample, out, jobs, timeout, memory, retry_failed)
    typer.echo(frame.to_string(index=False))
    typer.echo(f"table: {out / 'conversion.md'}")
    if (frame["passed"] < frame["eligible"]).any():
        raise typer.Exit(1)
