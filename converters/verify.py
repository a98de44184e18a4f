"""Prove a conversion: the outputs before and after, on the same input."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from metric_zoo.converters.modes import evaluation
from metric_zoo.errors import ConversionError

RELATIVE_TOLERANCE = 1e-5
"""Allowed max |difference|, as a share of the compared tensor's largest magnitude, in float32 and float64."""


@dataclass(frozen=True)
class Difference:
    """How far a tensor is from what it was: ``maximum`` |new - old|, and ``scale``, the largest |old|."""

    maximum: float
    scale: float

    @property
    def relative(self) -> float:
        """``maximum / scale``."""
        return self.maximum / self.scale if self.scale else self.maximum

    def __add__(self, other: Difference) -> Difference:
        """At most, of one after the other."""
        return Difference(self.maximum + other.maximum, _max(self.scale, other.scale))

    def __or__(self, other: Difference) -> Difference:
        """Of two tensors together."""
        return Difference(_max(self.maximum, other.maximum), _max(self.scale, other.scale))


def difference(new: Tensor, old: Tensor) -> Difference:
    """Compare two tensors of one shape; equal infinities or NaN count as equal."""
    if not old.numel():
        return Difference(0.0, 0.0)
    same = (new == old) | (new.isnan() & old.isnan())
    gap = torch.where(same, torch.zeros_like(old), (new - old).abs())
    return Difference(gap.max().item(), old.nan_to_num().abs().max().item())


def _max(a: float, b: float) -> float:
    """NaN wins: a comparison with it must fail."""
    return a if math.isnan(a) or a > b else b


def layer_differences(
    model: nn.Module, inputs: tuple[Any, ...], replacements: Mapping[nn.Conv2d, nn.Module]
) -> tuple[list[Tensor], dict[nn.Conv2d, Difference]]:
    """Run the original once; compare every convolution with its replacement on the inputs it sees.

    A network's output can hide a wrong layer (a residual branch that starts at gamma = 0, an empty list of boxes);
    a layer's own output cannot.

    Returns:
        The model's output tensors, and the difference of each convolution that was called.
    """
    found: dict[nn.Conv2d, Difference] = {}

    def compare(conv: nn.Conv2d, arguments: tuple[Tensor, ...], named: dict[str, Tensor], output: Tensor) -> None:
        new = _quiet(replacements[conv], *arguments, *named.values())
        found[conv] = found.get(conv, Difference(0.0, 0.0)) | difference(new, output)

    handles = [conv.register_forward_hook(compare, prepend=True, with_kwargs=True) for conv in replacements]
    try:
        outputs = run(model, inputs)
    finally:
        for handle in handles:
            handle.remove()
    return outputs, found


def _quiet(layer: nn.Module, input: Tensor) -> Tensor:
    """The layer without its hooks: they are the original's, and the user's run them in the model."""
    mode, layer.training = layer.training, False
    try:
        return layer.forward(input)
    finally:
        layer.training = mode


def run(model: nn.Module, inputs: tuple[Any, ...]) -> list[Tensor]:
    """Output tensors in evaluation mode, at full float32 precision, from copies of the inputs and one random state."""
    inputs = torch.utils._pytree.tree_map(lambda v: v.clone() if isinstance(v, Tensor) else v, inputs)
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    with evaluation(model), _full_precision(), torch.random.fork_rng(devices):
        torch.manual_seed(0)
        outputs = torch.utils._pytree.tree_leaves(model(*inputs))
    return [t.detach() for t in outputs if isinstance(t, Tensor) and t.is_floating_point()]


def output_difference(new: list[Tensor], old: list[Tensor]) -> Difference | None:
    """Compare two runs; None without tensors, or if their shapes depend on the data (a detector's boxes) and differ."""
    if not old or [t.shape for t in new] != [t.shape for t in old]:
        return None
    result = Difference(0.0, 0.0)
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
