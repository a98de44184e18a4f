"""The command line. Errors a user can cause are one line on standard error and exit code 2, never a traceback."""

from __future__ import annotations

import io
import sys
import warnings
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from metric_zoo import __version__
from metric_zoo.benchmarks.cli import app as bench
from metric_zoo.benchmarks.conversion.cli import app as conversion
from metric_zoo.benchmarks.kernels.cli import app as kernels
from metric_zoo.benchmarks.operators.cli import app as operators
from metric_zoo.errors import MetricZooError
from metric_zoo.leaderboards.cli import app as leaderboard

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False, help=__doc__)
app.add_typer(bench, name="bench")
app.add_typer(conversion, name="conversion")
app.add_typer(leaderboard, name="leaderboard")
app.add_typer(operators, name="ops")
app.add_typer(kernels, name="kernels")


def _version(show: bool) -> None:
    if show:
        typer.echo(f"metric-zoo {__version__}")
        raise typer.Exit()


@app.callback(help="Convert, train and compare models with adaptive convolutions.")
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Write the records and the leaderboard to this folder.")] = Path(
        "build/demo"
    ),
):
    """Convert a pretrained network, train four kinds of convolution on real digits, build the leaderboard."""
    from metric_zoo.demo import run_demo

    run_demo(out)


@app.command()
def inspect(
    model: Annotated[
        str, typer.Argument(help="Read the model of this name in its registry, such as resnet50 or tf_efficientnet_b0.")
    ],
    source: Annotated[str, typer.Option(help="Take the model from this registry: timm or torchvision.")] = "timm",
    to: Annotated[
        str, typer.Option(help="Ask for a conversion to this kind, such as metric or deformable.")
    ] = "metric",
    where: Annotated[
        str | None,
        typer.Option(help="Select layers whose whole name matches this regular expression; default: the policy."),
    ] = None,
) -> None:
    """List a model's convolutions, and which of them a conversion would take and why not the others."""
    from metric_zoo.converters.inspect import COLUMNS, inspect_convolutions
    from metric_zoo.nn.kind import Promise
    from metric_zoo.nn.registry import get_kind
    from metric_zoo.text import columns
    from metric_zoo.zoo.create import build_base
    from metric_zoo.zoo.origin import ModelOrigin

    rows = inspect_convolutions(build_base(ModelOrigin(source, model)), to, where)
    taken = sum(bool(row["selected"]) for row in rows)
    typer.echo(columns([list(COLUMNS), *([str(row[name]) for name in COLUMNS] for row in rows)]))
    would = "be tried as" if get_kind(to).promise is Promise.APPROXIMATION else "become"
    typer.echo(f"\n{taken} of {len(rows)} convolutions would {would} {to!r}")


@app.command("filter")
def filter_(
    image: Annotated[Path, typer.Argument(help="Read this picture, grey or in colour.")],
    out: Annotated[Path, typer.Option(help="Write the filtered pictures and their comparison to this folder.")] = Path(
        "filtered"
    ),
    clean: Annotated[Path | None, typer.Option(help="Compare with this picture, which has no noise.")] = None,
    noise: Annotated[
        float,
        typer.Option(
            min=0, help="Add noise of this standard deviation (of pixels in 0..1) first; IMAGE is then clean."
        ),
    ] = 0.0,
    kernel_size: Annotated[int, typer.Option(help="Sample a grid of so many points a side, an odd number.")] = 11,
) -> None:
    """Smooth a picture over balls of metrics that its own edges give, straight and geodesic ones."""
    import torch

    from metric_zoo.explain import compare_filters
    from metric_zoo.images import read_image

    picture = read_image(image)
    reference = read_image(clean) if clean is not None else None
    if noise:
        reference = picture if reference is None else reference
        generator = torch.Generator().manual_seed(0)
        picture = (picture + noise * torch.randn(picture.shape, generator=generator)).clamp(0, 1)
    typer.echo(compare_filters(picture, out, reference, kernel_size))
    typer.echo(f"pictures: {out}")


@app.command()
def explain(
    model: Annotated[
        str,
        typer.Argument(
            help="Read this model: a name, a folder of mz.save, or a record of a run that kept its weights."
        ),
    ],
    image: Annotated[Path, typer.Argument(help="Read this picture, grey or in colour.")],
    out: Annotated[Path, typer.Option(help="Write the pictures to this folder.")] = Path("explained"),
    to: Annotated[
        list[str] | None,
        typer.Option(help="Convert a MODEL given by name to this kind; again for more; default: metric."),
    ] = None,
    beside: Annotated[
        list[str] | None, typer.Option(help="Draw Grad-CAM of this other MODEL, too; again for more.")
    ] = None,
    source: Annotated[
        str, typer.Option(help="Take a MODEL given by name from this registry: timm or torchvision.")
    ] = "timm",
    pretrained: Annotated[
        bool, typer.Option("--pretrained", help="Give a MODEL given by name its trained weights.")
    ] = False,
    layer: Annotated[
        str | None, typer.Option(help="Draw the converted layer of this name; default: the first and the last.")
    ] = None,
    pixel: Annotated[
        list[str] | None, typer.Option(help="Draw balls at this pixel, X,Y; again for more; default: a grid.")
    ] = None,
    size: Annotated[
        int | None,
        typer.Option(help="Show the picture to the model with so many pixels a side; default: the model's own."),
    ] = None,
    target: Annotated[
        int | None, typer.Option(help="Explain the class of this number by Grad-CAM; default: each model's answer.")
    ] = None,
) -> None:
    """Draw where a model's layers read on a picture: balls, their fields, and Grad-CAM of several models."""
    from metric_zoo.explain import explain_models
    from metric_zoo.images import read_image

    picture, pixels = read_image(image), [_pixel(text) for text in pixel] if pixel else None
    models: dict = {}
    for name in (model, *(beside or ())):
        for called, found in _models(name, to or ["metric"], source, pretrained, several=bool(beside)).items():
            if called in models:
                raise MetricZooError(f"two models are called {called!r}: rename a file or a folder")
            models[called] = found
    options = {"layer": layer, "pixels": pixels, "size": size, "target": target, "look": _look(model)}
    for path in explain_models(models, picture, out, **options):
        typer.echo(path)


def _look(name: str):
    """How pictures are prepared for the network of a record: as its data were."""
    if not _is_record(Path(name)):
        return None
    from metric_zoo.benchmarks.input_look import look_of
    from metric_zoo.benchmarks.record_files import read_record

    return look_of(read_record(Path(name)))


def _is_record(path: Path) -> bool:
    """Whether a record has this path: a file of its own, or a line of a file beside."""
    from metric_zoo.benchmarks.record_files import collected

    return path.is_file() or collected(path) is not None


def _models(name: str, kinds: list[str], source: str, pretrained: bool, several: bool) -> dict:
    """What a user may name as a model, by short names."""
    path = Path(name)
    if _is_record(path):
        from metric_zoo.benchmarks.weights import trained_model

        return {path.stem: trained_model(path)}
    if path.is_dir():
        from metric_zoo.zoo import load

        return {path.name: load(path).eval()}
    from metric_zoo.zoo import create_model

    called = {kind: f"{name.replace('/', '-')}-{kind}" if several else kind for kind in kinds}
    build = partial(create_model, name, source=source, pretrained=pretrained)
    return {called[kind]: build(to=kind).eval() for kind in kinds}


def _pixel(text: str) -> tuple[float, float]:
    try:
        x, y = map(float, text.split(","))
    except ValueError:
        raise MetricZooError(f"--pixel {text!r}: expected X,Y such as 120,80") from None
    return x, y


def main() -> None:
    """Entry point of the ``metric-zoo`` command."""
    # Deprecations inside the frameworks are not the user's to mend.
    warnings.filterwarnings("ignore", category=FutureWarning)
    if isinstance(sys.stdout, io.TextIOWrapper):  # and not None, as where it was closed
        sys.stdout.reconfigure(errors="backslashreplace")  # names of files need not be UTF-8
    try:
        app()
    except (MetricZooError, OSError) as error:  # a disk or a network, where nobody had more to say of it
        print(f"metric-zoo: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
