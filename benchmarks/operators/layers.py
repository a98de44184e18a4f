"""What a kind costs as a layer, head included: forward with backward, beside an ordinary convolution."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from tqdm import tqdm

from metric_zoo import ops
from metric_zoo.benchmarks.operators.cases import Case
from metric_zoo.benchmarks.operators.publish import publish
from metric_zoo.benchmarks.provenance import Clock, provenance
from metric_zoo.errors import MetricZooError
from metric_zoo.nn.base import SampledConv2d
from metric_zoo.nn.registry import get_kind, list_layers
from metric_zoo.ops.backends import BACKENDS
from metric_zoo.text import markdown
from metric_zoo.timing import LEAST_REPEATS, alternate, quartiles

NAME = "layers"
MARKDOWN = f"{NAME}.md"
CASES = (Case(8, 64, 64, 56, 3), Case(8, 256, 256, 14, 3), Case(8, 256, 256, 28, 7, 256))
_DENSE = "conv2d"
_REFERENCE = "metric"
_VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "metric, zermelo": ("metric", {"sampling": "zermelo"}),
    "star, 3 harmonics, shifted": ("star", {"harmonics": 3, "shift": True}),
    "star, convex": ("star", {"convex": True}),
    "geodesic, zermelo": ("geodesic", {"sampling": "zermelo"}),
}
"""Options that make another rule of a kind."""
_PATIENCE = 120.0
"""Seconds for all layers of a case, beyond which three repeats are enough."""


def bench_layers(out: Path, repeats: int = 9, slow: bool = False) -> str:
    """Time a layer of every kind on all cases, on the CPU's threads in use; write and return the table.

    Args:
        out: folder of the two files.
        repeats: of every layer, at least 3.
        slow: with geodesic layers, which take many times as long as all others.

    Raises:
        MetricZooError: for too few repeats.
    """
    if repeats < LEAST_REPEATS:
        raise MetricZooError(f"repeats={repeats}: at least {LEAST_REPEATS}, or there are no quartiles")
    clock, results = Clock(), []
    for case in tqdm(CASES, desc=NAME, unit="case"):
        results += _measure(case, repeats, slow)
    report = {
        "threads": torch.get_num_threads(),
        "instructions": BACKENDS[ops.backend("cpu")].instructions(),
        "repeats": repeats,
        "provenance": provenance(clock).model_dump(),
        "results": results,
    }
    table = _table(report)
    publish(out, NAME, report, table)
    return table


def _measure(case: Case, repeats: int, slow: bool) -> list[dict[str, Any]]:
    layers: dict[str, nn.Module] = {_DENSE: _dense(case)}
    for name, (kind, options) in {**{name: (name, {}) for name in list_layers()}, **_VARIANTS}.items():
        if not get_kind(kind).why_not(_dense(case)) and (slow or kind != "geodesic"):
            layers[name] = _layer(case, kind, options)
    x = torch.randn(case.batch, case.channels, case.side, case.side, requires_grad=True)
    seconds = alternate({n: _training(m, x) for n, m in layers.items()}, repeats, torch.device("cpu"), _PATIENCE)
    rows = []
    for name, values in seconds.items():
        lower, median, upper = (1e3 * value for value in quartiles(values))
        figures = {"lower_quartile": lower, "median": median, "upper_quartile": upper}
        numbers = _numbers(layers[name])
        rows.append({"case": str(case), "layer": name, "numbers_a_pixel": numbers, "milliseconds": figures})
    return rows


def _dense(case: Case) -> nn.Conv2d:
    return nn.Conv2d(case.channels, case.out_channels, case.kernel, padding=case.kernel // 2, groups=case.groups)


@torch.no_grad()
def _layer(case: Case, kind: str, options: dict[str, Any]) -> nn.Module:
    """One whose samples lie off the grid, differently at every pixel."""
    conv = _dense(case)
    layer = get_kind(kind).build(conv, conv.padding, options)
    for parameter in get_kind(kind).rule_parameters(layer):
        parameter.add_((1e-3 if parameter.dim() > 1 else 0.1) * torch.randn_like(parameter))
    return layer


def _training(layer: nn.Module, x: Tensor) -> Callable[[], object]:
    leaves = [x, *layer.parameters()]
    with torch.no_grad():
        upstream = torch.ones_like(layer(x))
    return lambda: torch.autograd.grad(layer(x), leaves, upstream)


def _numbers(layer: nn.Module) -> int:
    """What its head predicts for every pixel, or for every image."""
    head = cast(SampledConv2d, layer).sampler if isinstance(layer, SampledConv2d) else None
    return 0 if head is None else head.out_channels


def _table(report: dict[str, Any]) -> str:
    by_layer: dict[str, dict[str, dict[str, Any]]] = {}
    for result in report["results"]:
        by_layer.setdefault(result["layer"], {})[result["case"]] = result
    cases = list(map(str, CASES))
    headings = ["Layer", "Numbers", *(f"{case}{unit}" for case in cases for unit in (", ms", f", / {_REFERENCE}"))]
    rows = []
    for name, found in by_layer.items():
        cells = [cell for case in cases for cell in _cells(found.get(case), by_layer[_REFERENCE][case])]
        rows.append([name, str(next(iter(found.values()))["numbers_a_pixel"]), *cells])
    versions = ", ".join(f"{name} {number}" for name, number in report["provenance"]["versions"].items())
    return (
        f"# Layers\n\nForward with backward of one layer of every kind, head included: medians of {report['repeats']} "
        f"alternating runs (3 where they take minutes) with half the interquartile range, float32, native backend "
        f"({report['instructions']}), {report['threads']} threads, {report['provenance']['hardware']['cpu']}. Numbers: "
        f"what the head predicts per pixel (stn: per image), of a 3x3 kernel. {versions}.\n\n"
        + markdown(headings, rows, [False] + [True] * (len(headings) - 1))
    )


def _cells(result: dict[str, Any] | None, reference: dict[str, Any]) -> list[str]:
    if result is None:
        return ["", ""]
    times = result["milliseconds"]
    half = (times["upper_quartile"] - times["lower_quartile"]) / 2
    return [f"{times['median']:.1f} ± {half:.1f}", f"{times['median'] / reference['milliseconds']['median']:.2f}"]
