"""What a conversion did to one convolution."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from metric_zoo.converters.converted import as_converted
from metric_zoo.converters.verify import Difference


@dataclass(frozen=True)
class Approximation:
    """How a layer that approximates a convolution does beside it.

    Attributes:
        dense_seconds, seconds: of a forward pass of the convolution and of the layer at the declared size, medians of
            both in turn.
        kernel_error: of its worst channel's kernel, relative to its norm; None where it was not fitted.
    """

    dense_seconds: float
    seconds: float
    kernel_error: float | None = None

    @property
    def speedup(self) -> float:
        """How many times as fast as the convolution."""
        return self.dense_seconds / self.seconds

    def loses(self, max_error: float, min_speedup: float) -> str:
        """Why it is not worth it, with the figure; empty where it is."""
        if self.speedup < min_speedup:
            slow = f"{milliseconds(self.seconds)} instead of {milliseconds(self.dense_seconds)}"
            return f"are {self.speedup:.2g} times as fast: {slow}"
        if self.kernel_error is not None and not self.kernel_error <= max_error:
            return f"are off by {self.kernel_error:.0%}, more than {max_error:.0%}"
        return ""


def milliseconds(seconds: float) -> str:
    """For a reader."""
    return f"{seconds * 1e3:.3g} ms"


@dataclass(frozen=True)
class LayerReport:
    """One converted layer: its kind and options (of an adopted one, none; and no kernel where its code calls the
    operator), shapes at the declared size, its head's form (one of
    `metric_zoo.nn.head.HEADS`, empty without a head) and parameters, and its difference on the example input.

    ``difference`` is that of the layer's own output; None where the example input did not reach it or the conversion
    was not meant to keep the function, and one of no ``compared`` values where none was finite. ``explained`` is for
    ``init="fit"``: see `metric_zoo.converters.fit_metric.fit_rule`; ``approximation`` is for a kind that promises one.
    """

    kind: str
    options: dict[str, Any]
    kernel: tuple[int, ...]
    input_shape: tuple[int, ...] | None
    output_shape: tuple[int, ...] | None
    head: str
    head_parameters: int
    difference: Difference | None
    explained: float | None = None
    approximation: Approximation | None = None

    @property
    def shows_nothing(self) -> bool:
        """Whether no value was compared."""
        return self.difference is None or not self.difference.compared


def describe(
    layer: nn.Module,
    conv: nn.Conv2d,
    input_shape: tuple[int, ...] | None = None,
    output_shape: tuple[int, ...] | None = None,
    difference: Difference | None = None,
    explained: float | None = None,
    approximation: Approximation | None = None,
) -> LayerReport:
    """The report of ``layer``, which replaces ``conv``."""
    head, own = getattr(layer, "sampler", None), as_converted(layer)
    return LayerReport(
        kind=own.kind,
        options=own.config.to_dict(),
        kernel=own.kernel_size,
        input_shape=input_shape,
        output_shape=output_shape,
        head=head.form if head is not None else "",
        head_parameters=sum(p.numel() for p in layer.parameters()) - sum(p.numel() for p in conv.parameters()),
        difference=difference,
        explained=explained,
        approximation=approximation,
    )
