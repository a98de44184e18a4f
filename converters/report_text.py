"""A conversion's report for a reader."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from metric_zoo.converters.layer_report import Approximation, LayerReport, milliseconds
from metric_zoo.converters.verify import Difference, nothing_compared

if TYPE_CHECKING:
    from metric_zoo.converters.report import ConversionReport


def text_of(report: ConversionReport) -> str:
    """Lines: what was converted, what that added, what it changed, and why the rest stayed."""
    return "\n".join(
        [
            *_counts(report),
            *_moved(report),
            *_empty_layers(report.converted),
            *_approximated(report.approximations),
            *_explained(report.converted),
            *_left(report),
        ]
    )


def _counts(report: ConversionReport) -> list[str]:
    layers = report.converted.values()
    kinds = ", ".join(f"{n} {kind}" for kind, n in Counter(layer.kind for layer in layers).items())
    total = len(layers) + len(report.skipped)
    lines = [f"{report.model}: {len(layers)} of {total} convolutions converted ({kinds or 'nothing to swap'})"]
    if report.gone:
        lines.append(f"  gone    {len(report.gone):4d}  no longer in the model: {report.gone[0]!r} is the first")
    heads = ", ".join(f"{n} {form}" for form, n in Counter(layer.head for layer in layers if layer.head).items())
    lines.append(f"  added parameters  {report.head_parameters:,}" + (f" ({heads} heads)" if heads else ""))
    return lines


def _moved(report: ConversionReport) -> list[str]:
    lines = []
    verdict = "moved    " if report.approximations else "unchanged"
    if report.atrous:
        lines.append("  layer4 changed    stride 1, dilation 2 after its first block")
    if report.output_float64 is not None and report.output is not None:
        lines.append(f"  output unchanged  {_text(report.output_float64)}, in float64")
        lines.append(f"                    (the network amplifies float32 rounding to {report.output.maximum:.2e})")
    elif report.output is not None:
        lines.append(f"  output {verdict}  {_text(report.output)}")
    if report.worst_layer is not None:
        name, found = report.worst_layer
        lines.append(f"  layers {verdict}  {_text(found)}, at worst, in {name}")
    return lines


def _empty_layers(layers: dict[str, LayerReport]) -> list[str]:
    """Of the layers that ran on the example input, and showed nothing."""
    found = {
        n: nothing_compared(layer.difference) for n, layer in layers.items() if layer.difference and layer.shows_nothing
    }
    if not found:
        return []
    first, why = next(iter(found.items()))
    return [f"  layers not compared: {len(found)} of {len(layers)}, {first} the first: {why}"]


def _approximated(found: dict[str, Approximation]) -> list[str]:
    """Of the layers that stand in for a convolution: how far their kernels are off, and how fast they are together."""
    if not found:
        return []
    errors = {name: each.kernel_error for name, each in found.items() if each.kernel_error is not None}
    worst, mean = max(errors, key=errors.__getitem__), sum(errors.values()) / len(errors)
    dense, own = (sum(getattr(each, part) for each in found.values()) for part in ("dense_seconds", "seconds"))
    share = f"{mean:.1%} of its norm on average, by {errors[worst]:.1%} in {worst}"
    return [
        f"  kernels moved     each layer's worst by {share}",
        f"  speed             {dense / own:.3g} times: {milliseconds(own)} instead of {milliseconds(dense)}",
    ]


def _explained(layers: dict[str, LayerReport]) -> list[str]:
    shares = {name: layer.explained for name, layer in layers.items() if layer.explained is not None}
    if not shares:
        return []
    worst, mean = min(shares, key=shares.__getitem__), sum(shares.values()) / len(shares)
    return [f"  offsets explained {mean:.0%} on average, {shares[worst]:.0%} at worst, in {worst}"]


def _left(report: ConversionReport) -> list[str]:
    lines = [f"  skipped {count:4d}  {reason}" for reason, count in Counter(report.skipped.values()).most_common()]
    if report.converted and report.not_compared is not None:
        lines.insert(0, f"  outputs not compared: {report.not_compared}")
    return lines


def _text(found: Difference) -> str:
    text = f"max |difference| {found.maximum:.2e} at scale {found.scale:.2e}"
    if found.compared < found.values:
        text += f" ({found.values - found.compared:,} of {found.values:,} values are not finite)"
    return text if found.scale else f"{text} (all values are zero, which proves little)"
