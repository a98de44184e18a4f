"""Fit: layers that sample freely become layers of a metric whose balls cover their samples best."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from torch import nn

from metric_zoo.converters.analyse import Analysis
from metric_zoo.converters.build import build_layer
from metric_zoo.converters.fit_metric import fit_layers
from metric_zoo.converters.nodes import ConvNode
from metric_zoo.converters.options import layer_options
from metric_zoo.converters.original import find_original, plain_view, remember_original
from metric_zoo.converters.replacement import Decision, Replacement
from metric_zoo.converters.strategies.strategy import Strategy
from metric_zoo.errors import ConversionError
from metric_zoo.nn.base import SampledConv2d
from metric_zoo.nn.config import KindOptions
from metric_zoo.nn.kind import Kind
from metric_zoo.nn.registry import KINDS


class Fit(Strategy):
    """Kernels stay, the function is approximated; the report says how much of the offsets the balls explain."""

    init = "fit"

    def check(self, model: nn.Module, example_input: Any) -> None:
        """It needs a kind with a metric, and real images."""
        self._check_kind(self.to)
        if example_input is None:
            raise ConversionError(f"init={self.init!r} needs example_input: images such as the model was trained on")

    def decide(self, node: ConvNode, kind: Kind, explicit: bool) -> Decision:
        """Every layer that is sampled already, and that a metric can stand in for."""
        if getattr(node.module, "kind", None) == kind.name:
            return Decision(None, f"already {kind.name}", "settled")
        unfit = unfit_reason(node.module)
        return Decision(None, unfit, "unwanted") if unfit else Decision(kind.name)

    def try_out(self, replacements: Sequence[Replacement]) -> None:
        """As of `Strategy.try_out`."""
        for each in replacements:
            self._check_kind(each.kind)
        super().try_out(replacements)

    def layer_for(self, replacement: Replacement, settings: KindOptions) -> nn.Module:
        """A fresh layer with the kernel of the one it replaces, and as many groups of samples."""
        old, kind = cast(SampledConv2d, replacement.conv), replacement.kind
        # Unless they were asked for, the groups are those of the layer that is fitted, not the kind's default.
        groups = self.options.get("metric_groups", old._sample_groups())
        if groups != old._sample_groups():
            raise ConversionError(
                f"{replacement.name}: metric_groups={groups}, but it samples in {old._sample_groups()} groups"
            )
        options = {**layer_options(kind, settings), "metric_groups": groups}
        layer = build_layer(replacement.name, plain_view(old), kind.name, options)
        cast(SampledConv2d, layer).standardization = old.standardization
        remember_original(layer, find_original(old))
        return layer

    def fill(self, model: nn.Module, analysis: Analysis, replacements: Sequence[Replacement]) -> None:
        """Fit the heads on what reaches the layers in the original."""
        fit_layers(model, replacements, analysis.proofs[-1])

    def why_not_compared(self, model: nn.Module, replacements: Sequence[Replacement]) -> str | None:
        """Always."""
        return f"init={self.init!r} approximates the function"

    def _check_kind(self, kind: Kind) -> None:
        """Raise unless a kind samples the ball of a metric cell by cell."""
        if not _fits_metrics(kind):
            able = " or ".join(repr(name) for name, other in KINDS.items() if _fits_metrics(other))
            raise ConversionError(f"init={self.init!r} finds metrics: to={kind.name!r} has none, use {able}")
        if self.options.get("sampling", "grid") != "grid":
            raise ConversionError(
                f"init={self.init!r} compares samples cell by cell: sampling={self.options['sampling']!r} has other "
                "cells, use 'grid'"
            )


def unfit_reason(module: nn.Module) -> str:
    """Why a convolution's samples cannot be fitted; empty if they can."""
    if not isinstance(module, SampledConv2d):
        return "an ordinary convolution: there are no samples to fit"
    if module.modulates:
        return f"{module.kind}: a metric has no masks"
    sampling = getattr(module.config, "sampling", "grid")
    if sampling != "grid":
        return f"sampling={sampling!r}: its cells are not the grid's"
    if any(name not in module._parameters for name in ("weight", "bias")):
        return "its weight is computed (weight norm, pruning or a parametrization), not a parameter"
    return ""


def _fits_metrics(kind: Kind) -> bool:
    return getattr(kind.layer, "fits_metrics", False)
