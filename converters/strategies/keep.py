"""Keep the pretrained function: the layers start as the convolutions they replace, and that is proved."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from metric_zoo.converters.analyse import Analysis
from metric_zoo.converters.model_state import is_meta
from metric_zoo.converters.prove import Reference, difference_in_float64, run_original
from metric_zoo.converters.replacement import Replacement
from metric_zoo.converters.strategies.strategy import Strategy
from metric_zoo.converters.verify import Difference, check_unchanged
from metric_zoo.errors import ConversionError


class Keep(Strategy):
    """Weights and function stay. A kind that promises another function keeps the weights, and nothing is compared."""

    init = "pretrained"

    def check_built(self, replacements: Sequence[Replacement]) -> None:
        """It raises where a kind that can keep the function does not with these options."""
        for each in replacements:
            if each.kind.lossless and not each.sampled.weight.is_meta and not each.sampled.is_identity():
                raise ConversionError(
                    f"{each.name}: {each.kind.name} with {each.sampled.config} does not start as the original "
                    "convolution; use init='uniform' (the paper's start) or other options (for metric: sampling='grid')"
                )

    def side(self, analysis: Analysis) -> int | None:
        """A small image proves as much."""
        return analysis.side

    def compare(self, model: nn.Module, analysis: Analysis, replacements: Sequence[Replacement]) -> Reference | None:
        """Every layer that promises the convolution's function computes it, on what it sees in the model."""
        beside = [] if is_meta(model) else [each for each in replacements if each.kind.lossless]
        if not beside:
            return None
        reference = run_original(model, analysis.proofs, beside)
        for each in beside:
            if each.difference is not None:
                check_unchanged(f"layer {each.name}", each.difference, each.sampled.weight.dtype, roundings=4)
        return reference

    def why_not_compared(self, model: nn.Module, replacements: Sequence[Replacement]) -> str | None:
        """Where there are no values, or one layer starts as something else."""
        if is_meta(model):
            return "a model on the meta device has no values"
        other = next((each.kind.name for each in replacements if not each.kind.lossless), None)
        return f"kind {other!r} starts as another function" if other else None

    def judge(
        self, model: nn.Module, found: Difference, reference: Reference, replacements: Sequence[Replacement]
    ) -> Difference | None:
        """Only rounding may move the output, be it amplified."""
        dtype = next((t.dtype for t in reference.outputs), torch.float32)
        try:
            check_unchanged("the output", found, dtype, roundings=16)
            return None
        except ConversionError:
            # An ill-conditioned network (a detector that decodes boxes) amplifies float32's rounding beyond the
            # tolerance. In float64 rounding vanishes, and a real difference stays.
            names = [each.name for each in replacements]
            exact = difference_in_float64(model, reference.inputs, names) if dtype == torch.float32 else None
            if exact is None:
                raise
            check_unchanged("the output in float64", exact, torch.float64, roundings=16)
            return exact
