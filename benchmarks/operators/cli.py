"""``metric-zoo ops``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, help="The operators by themselves.")


@app.callback()
def _ops() -> None:
    """The operators by themselves."""


@app.command()
def bench(
    out: Annotated[Path, typer.Option(help="Folder of the table, JSON and Markdown.")] = Path("build/operators"),
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    dtype: Annotated[str, typer.Option(help="Such as float32 or bfloat16.")] = "float32",
    repeats: Annotated[int, typer.Option(help="Of every operator, alternating.")] = 7,
    only: Annotated[str | None, typer.Option(help="Cases whose name contains this.")] = None,
) -> None:
    """Time every operator beside a dense convolution and torchvision's deformable one."""
    from metric_zoo.benchmarks.operators.run import MARKDOWN, bench_operators

    typer.echo(bench_operators(out, device, dtype, repeats, only))
    typer.echo(f"table: {out / MARKDOWN}")


@app.command()
def geodesics(
    out: Annotated[Path, typer.Option(help="Folder of geodesics.md and geodesics.json.")] = Path("build/operators"),
    repeats: Annotated[int, typer.Option(help="Of every size, alternating.")] = 5,
    largest: Annotated[int, typer.Option(help="Pixels a side, at most.")] = 1024,
) -> None:
    """Time geodesic balls of pictures from 64 pixels a side on: how does the cost grow?"""
    from metric_zoo.benchmarks.operators.geodesics import MARKDOWN, bench_geodesics

    typer.echo(bench_geodesics(out, repeats, largest))
    typer.echo(f"table: {out / MARKDOWN}")


@app.command(name="gpu-check")
def gpu_check(
    out: Annotated[Path, typer.Option(help="Folder of gpu.json.")] = Path("build/gpu"),
    device: Annotated[str, typer.Option(help="A CUDA device.")] = "cuda",
) -> None:
    """Check the triton backend against float64 and time it, beside a dense convolution and torchvision's."""
    from metric_zoo.benchmarks.operators.gpu import JSON, gpu_check

    typer.echo(gpu_check(out, device))
    typer.echo(f"figures: {out / JSON}")
