"""``metric-zoo ops``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, help="Measure the operators by themselves.")


@app.callback()
def _ops() -> None:
    """Measure the operators by themselves."""


@app.command()
def bench(
    out: Annotated[Path, typer.Option(help="Write the table, JSON and Markdown, to this folder.")] = Path(
        "build/operators"
    ),
    device: Annotated[str, typer.Option(help="Run on this device: cpu or cuda.")] = "cpu",
    dtype: Annotated[str, typer.Option(help="Compute in this type, such as float32 or bfloat16.")] = "float32",
    repeats: Annotated[int, typer.Option(help="Time every operator so many times, alternating.")] = 7,
    only: Annotated[str | None, typer.Option(help="Take only the cases whose name contains this text.")] = None,
) -> None:
    """Time every operator beside a dense convolution and torchvision's deformable one."""
    from metric_zoo.benchmarks.operators.run import MARKDOWN, bench_operators

    typer.echo(bench_operators(out, device, dtype, repeats, only))
    typer.echo(f"table: {out / MARKDOWN}")


@app.command()
def layers(
    out: Annotated[Path, typer.Option(help="Write layers.md and layers.json to this folder.")] = Path(
        "build/operators"
    ),
    repeats: Annotated[int, typer.Option(help="Time every layer so many times, alternating.")] = 9,
    slow: Annotated[bool, typer.Option("--slow", help="Time geodesic layers, too, which take minutes.")] = False,
) -> None:
    """Time a layer of every kind, its head included, forward with backward."""
    from metric_zoo.benchmarks.operators.layers import MARKDOWN, bench_layers

    typer.echo(bench_layers(out, repeats, slow))
    typer.echo(f"table: {out / MARKDOWN}")


@app.command()
def geodesics(
    out: Annotated[Path, typer.Option(help="Write geodesics.md and geodesics.json to this folder.")] = Path(
        "build/operators"
    ),
    repeats: Annotated[int, typer.Option(help="Time every size so many times, alternating.")] = 5,
    largest: Annotated[int, typer.Option(help="Stop at pictures of so many pixels a side.")] = 1024,
) -> None:
    """Time geodesic balls of pictures from 64 pixels a side on, to see how the cost grows."""
    from metric_zoo.benchmarks.operators.geodesics import MARKDOWN, bench_geodesics

    typer.echo(bench_geodesics(out, repeats, largest))
    typer.echo(f"table: {out / MARKDOWN}")


@app.command(name="gpu-check")
def gpu_check(
    out: Annotated[Path, typer.Option(help="Write gpu.json to this folder.")] = Path("build/gpu"),
    device: Annotated[str, typer.Option(help="Run on this CUDA device, such as cuda or cuda:1.")] = "cuda",
) -> None:
    """Check the triton backend against float64 and time it, beside a dense convolution and torchvision's."""
    from metric_zoo.benchmarks.operators.gpu import JSON, gpu_check

    typer.echo(gpu_check(out, device))
    typer.echo(f"figures: {out / JSON}")
