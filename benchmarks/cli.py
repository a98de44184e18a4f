"""``metric-zoo bench``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, help="Train, evaluate and measure.")


@app.callback()
def _bench() -> None:
    """Train, evaluate and measure."""


@app.command()
def run(
    recipe: Annotated[str, typer.Argument(help="YAML file, or the name of a recipe that comes with the package.")],
    out: Annotated[Path, typer.Option(help="Folder for the records; runs whose record is there are skipped.")] = Path(
        "records"
    ),
    num_processes: Annotated[int, typer.Option(help="Processes that train each run together, one per GPU.")] = 1,
    cpu: Annotated[bool, typer.Option("--cpu", help="Do not use a GPU.")] = False,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Run again what failed before.")] = False,
) -> None:
    """Run a recipe: every model, kind and seed leaves one record. Exit code 1 if a run failed."""
    from metric_zoo.benchmarks.launch import find_recipe, run_recipe

    outcome = run_recipe(find_recipe(recipe), out, num_processes, cpu, retry_failed)
    typer.echo(
        f"{outcome['ok']} runs ok, {outcome['failed']} failed, {outcome['skipped']} of them done before; "
        f"records in {out}"
    )
    if outcome["failed"]:
        typer.echo("see 'failure' in the failed records; --retry-failed runs them again")
        raise typer.Exit(1)
