"""Differences of tensors, and runs whose outputs can be compared."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils import _pytree

from metric_zoo.converters.example_inputs import Inputs, call
from metric_zoo.converters.model_state import SHARED
from metric_zoo.errors import ConversionError
from metric_zoo.nn.evaluation import evaluation

RELATIVE_TOLERANCE = 1e-5
"""Allowed max |difference|, as a share of the compared tensor's largest magnitude, in float32 and float64."""


@dataclass(frozen=True)
class Difference:
    """How far a tensor is from what it was.

    Attributes:
        maximum: |new - old|, of the values that were finite.
        scale: the largest |old| of them.
        compared: how many they are; 0 proves nothing.
        values: how many there are in all.
    """

    maximum: float
    scale: float
    compared: int = 1
    values: int = 1

    @property
    def relative(self) -> float:
        """``maximum / scale``."""
        return self.maximum / self.scale if self.scale else self.maximum

    def __add__(self, other: Difference) -> Difference:
        """At most, of one after the other."""
        maximum, scale = self.maximum + other.maximum, _max(self.scale, other.scale)
        return Difference(maximum, scale, min(self.compared, other.compared), max(self.values, other.values))

    def __or__(self, other: Difference) -> Difference:
        """Of two tensors together."""
        maximum, scale = _max(self.maximum, other.maximum), _max(self.scale, other.scale)
        return Difference(maximum, scale, self.compared + other.compared, self.values + other.values)


_NOTHING = Difference(0.0, 0.0, compared=0, values=0)


def nothing_compared(found: Difference | None) -> str | None:
    """Why a comparison proves nothing; None where values were compared."""
    if found is None:
        return "there is no tensor, or its shape depends on the data"
    if not found.values:
        return "the output is empty"
    return None if found.compared else f"none of {found.values:,} values is finite"


def difference(new: Tensor, old: Tensor) -> Difference:
    """Compare two tensors of one shape; equal infinities or NaN count as equal."""
    if not old.numel():
        return _NOTHING
    same = (new == old) | (new.isnan() & old.isnan())
    gap = torch.where(same, torch.zeros_like(old), (new - old).abs())
    finite = old.isfinite()
    scale = torch.where(finite, old, torch.zeros_like(old)).abs().max().item()
    return Difference(gap.max().item(), scale, int(finite.sum()), old.numel())


def _max(a: float, b: float) -> float:
    """NaN wins: a comparison with it must fail."""
    return a if math.isnan(a) or a > b else b


def run(model: nn.Module, inputs: Inputs) -> list[Tensor]:
    """Output tensors in evaluation mode, at full float32 precision, from copies of the inputs and one random state."""
    inputs = _pytree.tree_map(lambda v: v.clone() if isinstance(v, Tensor) else v, inputs)
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    with SHARED, evaluation(model), _full_precision(), torch.random.fork_rng(devices):
        torch.manual_seed(0)
        outputs = _pytree.tree_leaves(call(model, inputs))
    return [t.detach() for t in outputs if isinstance(t, Tensor) and t.is_floating_point()]


def output_difference(new: list[Tensor], old: list[Tensor]) -> Difference | None:
    """Compare two runs; None without tensors, or if their shapes depend on the data (a detector's boxes) and differ."""
    if not old or [t.shape for t in new] != [t.shape for t in old]:
        return None
    result = _NOTHING
    for pair in zip(new, old, strict=True):
        result = result | difference(*pair)
    return result


def check_unchanged(what: str, found: Difference, dtype: torch.dtype, roundings: int) -> None:
    """Raise unless a difference is rounding.

    Args:
        what: for the message.
        found: the difference.
        dtype: of the tensor compared.
        roundings: by how many units in the last place two correct results may differ, where that is more than
            `RELATIVE_TOLERANCE` (half types: every layer rounds).

    Raises:
        ConversionError: if it exceeds the tolerance of ``dtype``.
    """
    tolerance = max(RELATIVE_TOLERANCE, roundings * torch.finfo(dtype).eps)
    if not found.relative <= tolerance:
        raise ConversionError(
            f"{what} differs by {found.maximum:.3g} at a scale of {found.scale:.3g}, more than {tolerance:.1g} of it; "
            "the model was left as it was"
        )


def _full_precision() -> AbstractContextManager[None]:
    """TensorFloat-32 would differ between two correct convolutions by more than the tolerance."""
    return torch.backends.cudnn.flags(enabled=torch.backends.cudnn.enabled, allow_tf32=False)
