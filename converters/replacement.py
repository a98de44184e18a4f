"""One convolution on its way through a conversion: decided on, built, proved, reported."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import cast

from torch import nn

from metric_zoo.converters.layer_report import Approximation
from metric_zoo.converters.nodes import ConvNode
from metric_zoo.converters.verify import Difference
from metric_zoo.nn.base import SampledConv2d
from metric_zoo.nn.kind import Kind
from metric_zoo.nn.registry import get_kind


@dataclass(frozen=True)
class Decision:
    """The kind a convolution becomes, or None and the reason.

    ``outcome`` tells reasons apart: ``"convert"``; ``"unselected"`` by ``where``; ``"unwanted"`` by the policy or for
    its 1x1 kernel; ``"unsupported"``, a class the converter does not know; ``"settled"``, it is as asked already;
    ``"misfit"``, the options do not fit it; ``"refused"``, it was tried and lost.
    """

    kind: str | None
    reason: str = ""
    outcome: str = "convert"


@dataclass(eq=False)
class Replacement:
    """What a conversion makes of one convolution, filled in as it goes on.

    Attributes:
        node: the convolution.
        decision: what it becomes, or why it stays.
        layer: that takes its place; None until it is built, and where the convolution stays.
        difference: of the layer's output on the example input; None where it was not compared, or not reached.
        explained: of a fitted layer; see `metric_zoo.converters.fit_metric.fit_rule`.
        approximation: how a layer that approximates the convolution does beside it.
    """

    node: ConvNode
    decision: Decision
    layer: nn.Module | None = None
    difference: Difference | None = None
    explained: float | None = None
    approximation: Approximation | None = None

    @property
    def name(self) -> str:
        """Of the convolution in the model."""
        return self.node.name

    @property
    def conv(self) -> nn.Conv2d:
        """The convolution itself, of this class wherever a layer takes its place."""
        return cast(nn.Conv2d, self.node.module)

    @property
    def built(self) -> nn.Module:
        """The layer, once it is there."""
        assert self.layer is not None, f"{self.name} has no layer yet"
        return self.layer

    @property
    def sampled(self) -> SampledConv2d:
        """The layer of a kind that samples: every one but those that approximate."""
        return cast(SampledConv2d, self.layer)

    @property
    def kind(self) -> Kind:
        """Of the layer; for a convolution that is `chosen`."""
        return get_kind(cast(str, self.decision.kind))

    @property
    def chosen(self) -> bool:
        """Whether a layer takes the convolution's place."""
        return self.decision.kind is not None


def chosen(replacements: Iterable[Replacement]) -> list[Replacement]:
    """Those whose convolution is replaced, and does not stay."""
    return [each for each in replacements if each.chosen]
