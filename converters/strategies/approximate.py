"""Approximate: kernels that stay as they are give place to what computes nearly the same, faster."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn
from tqdm import tqdm

from metric_zoo.converters.analyse import Analysis
from metric_zoo.converters.conv_types import behaviour, unsupported_reason
from metric_zoo.converters.layer_report import Approximation
from metric_zoo.converters.model_state import is_meta
from metric_zoo.converters.nodes import ConvNode
from metric_zoo.converters.progress import PATIENCE
from metric_zoo.converters.prove import Reference, run_original
from metric_zoo.converters.replacement import Decision, Replacement
from metric_zoo.converters.strategies.keep import Keep
from metric_zoo.converters.strategies.strategy import Strategy
from metric_zoo.errors import ConversionError
from metric_zoo.nn.config import KindOptions
from metric_zoo.nn.kind import Kind, kind_of
from metric_zoo.timing import alternate, quartiles

_REPEATS = 5


class _Limits(Protocol):
    """What `Promise.APPROXIMATION` asks of the options."""

    max_error: float
    min_speedup: float


class _Approximating(Protocol):
    """What it asks of the layer."""

    def approximate(self, conv: nn.Conv2d, options: KindOptions) -> None: ...

    def kernel_error(self, kernels: Tensor) -> float: ...


class Approximate(Strategy):
    """For a kind that promises an approximation: each layer is tried beside its convolution, and kept where it is fast
    and close enough. The report tells both.

    Of the kind's conversion it takes the options ``max_error`` and ``min_speedup``; of its layer, `approximate(conv,
    options)`, which fits it, and `kernel_error(kernels)`, how far off it then is.
    """

    init = Keep.init

    def check(self, model: nn.Module, example_input: Any) -> None:
        """It needs kernels."""
        if is_meta(model):
            raise ConversionError("a model on the meta device has no kernels to fit")

    def decide(self, node: ConvNode, kind: Kind, explicit: bool) -> Decision:
        """Every convolution whose kernels are fixed, and that is called, or its speed would be unknown."""
        found = kind_of(node.module)
        if found is not None:
            return Decision(None, f"{found.name}: its kernel is not fixed", "unwanted")
        unsupported = unsupported_reason(node.module)
        if unsupported:
            return Decision(None, unsupported, "unsupported")
        unwanted = kind.why_not(node.module) or _no_fixed_kernel(node) or kind.unwanted(node, explicit)
        return Decision(None, unwanted, "unwanted") if unwanted else Decision(kind.name)

    def try_out(self, replacements: Sequence[Replacement]) -> None:
        """Build and fit, and refuse what is slower or further off than the options allow."""
        settings = self.settings(replacements)
        bar = {"unit": "layer", "delay": PATIENCE, "leave": False}
        for each in tqdm(replacements, f"{self.to.name} kernels", **bar):
            lost = self._try(each, settings[each.kind.name])
            if lost:
                each.decision, each.layer = Decision(None, f"{each.kind.name} kernels {lost}", "refused"), None

    def compare(self, model: nn.Module, analysis: Analysis, replacements: Sequence[Replacement]) -> Reference | None:
        """How far each layer moves its output, at the size that was declared or given."""
        return run_original(model, analysis.proofs[-1:], replacements) if replacements else None

    def _try(self, each: Replacement, settings: KindOptions) -> str:
        """Why a layer loses, empty where it wins. One that is too slow is not fitted."""
        told = cast(_Limits, settings)
        limits = (told.max_error, told.min_speedup)
        each.layer = layer = self.layer_for(each, settings)
        each.approximation = _timed(each)
        slow = each.approximation.loses(*limits)
        if slow:
            return slow
        approximating = cast(_Approximating, layer)
        approximating.approximate(each.conv, settings)
        each.approximation = replace(_timed(each), kernel_error=approximating.kernel_error(each.conv.weight))
        return each.approximation.loses(*limits)


def _no_fixed_kernel(node: ConvNode) -> str:
    conv = cast(nn.Conv2d, node.module)  # of a supported class
    if behaviour(conv).standardization is not None:
        return "its weight is standardised at every call"
    if node.calls == 0:
        return "not called in evaluation"
    return "" if bool(conv.weight.isfinite().all()) else "its kernels are not finite"


@torch.no_grad()
def _timed(each: Replacement) -> Approximation:
    """Both forward passes on noise of the declared size, in turn."""
    conv, layer, shape = each.conv, each.built, each.node.input_shape
    assert shape is not None, f"{each.name} was not called"
    noise = torch.rand(shape, generator=torch.Generator().manual_seed(0)).to(conv.weight)
    pair = {"dense": lambda: conv.forward(noise), "own": lambda: layer.forward(noise)}
    medians = {name: quartiles(times)[1] for name, times in alternate(pair, _REPEATS, conv.weight.device).items()}
    return Approximation(medians["dense"], medians["own"])
