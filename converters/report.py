"""What a conversion did."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from torch import nn

from metric_zoo.converters.model_state import drop, keep
from metric_zoo.converters.original import CONVERTED, NAME
from metric_zoo.converters.verify import Difference, nothing_compared
from metric_zoo.errors import ConversionError
from metric_zoo.nn.base import SampledConv2d
from metric_zoo.nn.sparse import SparseKernelComplex2d
from metric_zoo.text import size

if TYPE_CHECKING:
    import pandas

_ATTRIBUTE = "_metric_zoo_report"
COLUMNS = (
    "name",
    "kind",
    "kernel",
    "input",
    "output",
    "head",
    "head_parameters",
    "difference",
    "kernel_error",
    "speedup",
    "reason",
)
"""Of a report's frame; sizes are text, ``"3x3"``."""


@dataclass(frozen=True)
class Approximation:
    """How a layer that approximates a convolution does beside it.

    Attributes:
        dense_seconds, sparse_seconds: of a forward pass at the declared size, medians of both in turn.
        kernel_error: of its worst channel's kernel, relative to its norm; None where it was not fitted.
    """

    dense_seconds: float
    sparse_seconds: float
    kernel_error: float | None = None

    @property
    def speedup(self) -> float:
        """How many times as fast as the convolution."""
        return self.dense_seconds / self.sparse_seconds

    def loses(self, max_error: float, min_speedup: float) -> str:
        """Why it is not worth it, with the figure; empty where it is."""
        if self.speedup < min_speedup:
            return (
                f"sparse kernels are {self.speedup:.2g} times as fast: {_milliseconds(self.sparse_seconds)} instead of "
                f"{_milliseconds(self.dense_seconds)}"
            )
        if self.kernel_error is not None and not self.kernel_error <= max_error:
            return f"sparse kernels are off by {self.kernel_error:.0%}, more than {max_error:.0%}"
        return ""


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1e3:.3g} ms"


@dataclass(frozen=True)
class LayerReport:
    """One converted layer: its kind and options, shapes at the declared size, its head's form (one of
    `metric_zoo.nn.head.HEADS`, empty without a head) and parameters, and its difference on the example input.

    ``difference`` is that of the layer's own output; None where the example input did not reach it or the conversion
    was not meant to keep the function, and one of no ``compared`` values where none was finite. ``explained`` is for
    ``init="fit"``: see `metric_zoo.converters.fit_metric.fit_rule`; ``approximation`` is for ``to="sparse"``.
    """

    kind: str
    options: dict[str, Any]
    kernel: tuple[int, int]
    input_shape: tuple[int, ...] | None
    output_shape: tuple[int, ...] | None
    head: str
    head_parameters: int
    difference: Difference | None
    explained: float | None = None
    approximation: Approximation | None = None


def describe(
    layer: SampledConv2d | SparseKernelComplex2d,
    conv: nn.Conv2d,
    input_shape: tuple[int, ...] | None = None,
    output_shape: tuple[int, ...] | None = None,
    difference: Difference | None = None,
    explained: float | None = None,
    approximation: Approximation | None = None,
) -> LayerReport:
    """The report of ``layer``, which replaces ``conv``."""
    head = getattr(layer, "sampler", None)
    return LayerReport(
        kind=layer.kind,
        options=layer.config.to_dict(),
        kernel=layer.kernel_size,
        input_shape=input_shape,
        output_shape=output_shape,
        head=head.form if head is not None else "",
        head_parameters=sum(p.numel() for p in layer.parameters()) - sum(p.numel() for p in conv.parameters()),
        difference=difference,
        explained=explained,
        approximation=approximation,
    )


@dataclass
class ConversionReport:
    """What `convert` did to a model.

    Attributes:
        model: the model's class.
        converted: name -> `LayerReport`.
        skipped: name -> reason, for every other convolution.
        output: difference of the whole model's output (of several approximations one after the other the sum, which it
            does not exceed); None if nothing was compared: its shapes depend on the data (then the layers' own
            differences are the proof), it is empty, or it has no finite value.
        output_float64: the same in double precision, where float32's rounding alone exceeds the tolerance; else None.
        not_compared: why the outputs were not compared; None if they were.
        atrous: whether ResNet's layer 4 now runs at stride 1, with dilation 2 (the paper's preset).
        gone: names of layers that were converted and have since been taken out of the model (merged, replaced).
    """

    model: str
    converted: dict[str, LayerReport] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    output: Difference | None = None
    output_float64: Difference | None = None
    not_compared: str | None = None
    atrous: bool = False
    gone: tuple[str, ...] = ()

    @property
    def worst_layer(self) -> tuple[str, Difference] | None:
        """The converted layer whose output moved most, relative to its scale; None if none was compared."""
        compared = {name: v.difference for name, v in self.converted.items() if not _nothing_in(v)}
        return max(compared.items(), key=lambda item: item[1].relative, default=None)

    @property
    def approximations(self) -> dict[str, Approximation]:
        """Of the layers that only approximate the convolution they replace, by name."""
        return {name: v.approximation for name, v in self.converted.items() if v.approximation is not None}

    @property
    def head_parameters(self) -> int:
        """Parameters that the conversion added."""
        return sum(layer.head_parameters for layer in self.converted.values())

    def to_frame(self) -> pandas.DataFrame:
        """One row per convolution, with the columns `COLUMNS`."""
        import pandas

        rows = [
            {
                "name": name,
                "kind": layer.kind,
                "kernel": size(layer.kernel),
                "input": size(layer.input_shape),
                "output": size(layer.output_shape),
                "head": layer.head,
                "head_parameters": layer.head_parameters,
                "difference": None if _nothing_in(layer) else layer.difference.maximum,
                "kernel_error": layer.approximation.kernel_error if layer.approximation else None,
                "speedup": layer.approximation.speedup if layer.approximation else None,
                "reason": "",
            }
            for name, layer in self.converted.items()
        ]
        rows += [{"name": name, "kind": "standard", "reason": reason} for name, reason in self.skipped.items()]
        return pandas.DataFrame(rows, columns=list(COLUMNS))

    def __str__(self) -> str:
        kinds = ", ".join(f"{n} {kind}" for kind, n in Counter(v.kind for v in self.converted.values()).items())
        total = len(self.converted) + len(self.skipped)
        lines = [
            f"{self.model}: {len(self.converted)} of {total} convolutions converted ({kinds or 'nothing to swap'})"
        ]
        forms = Counter(layer.head for layer in self.converted.values() if layer.head)
        heads = ", ".join(f"{count} {form}" for form, count in forms.items())
        if self.gone:
            lines.append(f"  gone    {len(self.gone):4d}  no longer in the model: {self.gone[0]!r} is the first")
        lines.append(f"  added parameters  {self.head_parameters:,}" + (f" ({heads} heads)" if heads else ""))
        verdict = "moved    " if self.approximations else "unchanged"
        if self.atrous:
            lines.append("  layer4 changed    stride 1, dilation 2 after its first block")
        if self.output_float64 is not None:
            lines.append(f"  output unchanged  {_text(self.output_float64)}, in float64")
            lines.append(f"                    (the network amplifies float32 rounding to {self.output.maximum:.2e})")
        elif self.output is not None:
            lines.append(f"  output {verdict}  {_text(self.output)}")
        if self.worst_layer is not None:
            name, found = self.worst_layer
            lines.append(f"  layers {verdict}  {_text(found)}, at worst, in {name}")
        lines += _empty_layers(self.converted)
        lines += _approximated(self.approximations)
        shares = {name: layer.explained for name, layer in self.converted.items() if layer.explained is not None}
        if shares:
            worst, mean = min(shares, key=shares.get), sum(shares.values()) / len(shares)
            lines.append(f"  offsets explained {mean:.0%} on average, {shares[worst]:.0%} at worst, in {worst}")
        if self.converted and self.not_compared is not None:
            lines.append(f"  outputs not compared: {self.not_compared}")
        for reason, count in Counter(self.skipped.values()).most_common():
            lines.append(f"  skipped {count:4d}  {reason}")
        return "\n".join(lines)


def _approximated(found: dict[str, Approximation]) -> list[str]:
    """Of the layers that a complex stands in for: how far their kernels are off, and how fast they are together."""
    if not found:
        return []
    errors = {name: each.kernel_error for name, each in found.items()}
    worst, mean = max(errors, key=errors.get), sum(errors.values()) / len(errors)
    dense, sparse = (
        sum(getattr(each, part) for each in found.values()) for part in ("dense_seconds", "sparse_seconds")
    )
    share = f"{mean:.1%} of its norm on average, by {errors[worst]:.1%} in {worst}"
    return [
        f"  kernels moved     each layer's worst by {share}",
        f"  speed             {dense / sparse:.3g} times: {_milliseconds(sparse)} instead of {_milliseconds(dense)}",
    ]


def _nothing_in(layer: LayerReport) -> bool:
    return layer.difference is None or not layer.difference.compared


def _empty_layers(layers: dict[str, LayerReport]) -> list[str]:
    """Of the layers that ran on the example input, and showed nothing."""
    found = {name: nothing_compared(v.difference) for name, v in layers.items() if v.difference and _nothing_in(v)}
    if not found:
        return []
    first, why = next(iter(found.items()))
    return [f"  layers not compared: {len(found)} of {len(layers)}, {first} the first: {why}"]


def _text(found: Difference) -> str:
    text = f"max |difference| {found.maximum:.2e} at scale {found.scale:.2e}"
    if found.compared < found.values:
        text += f" ({found.values - found.compared:,} of {found.values:,} values are not finite)"
    return text if found.scale else f"{text} (all values are zero, which proves little)"


def attach(model: nn.Module, report: ConversionReport) -> None:
    """Keep the report on the model; a second conversion adds to the first."""
    previous = getattr(model, _ATTRIBUTE, None)
    if previous is not None:
        if not report.converted:  # nothing was done: what was proved before still holds
            report = replace(previous, skipped=report.skipped)
        if previous.approximations and previous.output and report.output:
            report.output += previous.output  # what was approximated before still moves it
        report.converted = {**previous.converted, **report.converted}
        report.skipped = {name: why for name, why in report.skipped.items() if name not in report.converted}
        report.atrous |= previous.atrous
    keep(model, _ATTRIBUTE, report)
    # Each knows its name: wrappers (PEFT's, FSDP's) put their own before it, and what is merged takes it along.
    for name, module in model.named_modules(remove_duplicate=False):
        if name in report.converted and isinstance(module, CONVERTED):
            setattr(module, NAME, name)


def detach(model: nn.Module) -> None:
    """Forget the report: the model is plain again."""
    drop(model, _ATTRIBUTE)


def conversion_report(model: nn.Module) -> ConversionReport:
    """The report of a model that `convert` returned: of the layers that are still there.

    Raises:
        ConversionError: if the model was not converted.
    """
    report = getattr(model, _ATTRIBUTE, None)
    if report is None:
        raise ConversionError(f"{type(model).__name__} has no conversion report: it did not come from mz.convert")
    present = {getattr(module, NAME, None) for module in model.modules() if isinstance(module, CONVERTED)}
    there = {name: layer for name, layer in report.converted.items() if name in present}
    return replace(report, converted=there, gone=tuple(name for name in report.converted if name not in there))
