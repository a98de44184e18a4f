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
    source: Annotated[
        list[str] | None,
        typer.Option(
            help="Take the architectures of this registry, timm or torchvision; again for more; default: both."
        ),
    ] = None,
    to: Annotated[
        list[str] | None, typer.Option(help="Convert to this kind; again for more; default: every kind.")
    ] = None,
    sample: Annotated[
        int | None, typer.Option(help="Take only so many architectures, one of every family first.")
    ] = None,
    out: Annotated[
        Path,
        typer.Option(help="Write the table, CSV and Markdown, to this folder; what it knows is not computed again."),
    ] = Path("build/conversion"),
    jobs: Annotated[
        int | None, typer.Option(help="Start so many workers, each on one thread; default: one a processor.")
    ] = None,
    timeout: Annotated[float, typer.Option(help="Give up an architecture after so many seconds.")] = 900.0,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Check again what did not pass before.")] = False,
    memory: Annotated[
        float | None,
        typer.Option(help="Use at most so many GiB in all workers together; default: 3/4 of the machine's."),
    ] = None,
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
