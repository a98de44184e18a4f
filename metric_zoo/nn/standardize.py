"""Weight standardisation, so that standardised convolutions keep it when they are converted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class WeightStandardization:
    """Zero mean and unit variance for every output channel's kernel, with an optional gain.

    Source: Qiao et al., *Micro-Batch Training with Batch-Channel Normalization and Weight Standardization* (2019,
    https://arxiv.org/abs/1903.10520); with gain: Brock et al., *Characterizing signal propagation ...* (ICLR 2021,
    https://arxiv.org/abs/2101.08692).

    Attributes:
        eps: added to the variance.
        scale: factor on the gain, ``gamma / sqrt(fan_in)``; unused without one.
    """

    eps: float
    scale: float = 1.0

    def __call__(self, weight: Tensor, gain: Tensor | None) -> Tensor:
        """Standardise ``weight (O, C, kh, kw)``; ``gain`` is ``(O, 1, 1, 1)`` or None."""
        factor = None if gain is None else (gain * self.scale).flatten()
        flat = weight.reshape(1, weight.shape[0], -1)
        # batch_norm over "a batch of one with O channels" is the fused form of this normalisation.
        return F.batch_norm(flat, None, None, weight=factor, training=True, momentum=0.0, eps=self.eps).view_as(weight)


_TIMM = frozenset({"StdConv2d", "StdConv2dSame", "ScaledStdConv2d", "ScaledStdConv2dSame"})
"""Named, not imported: a model that uses them has imported them, another needs no timm."""


def standardization_of(conv: nn.Module) -> WeightStandardization | None:
    """How a convolution of timm standardises its weight at every call; None where it does not."""
    cls = type(conv)
    if not cls.__module__.startswith("timm.layers.") or cls.__name__ not in _TIMM:
        return None
    return WeightStandardization(cast("float", conv.eps), getattr(conv, "scale", 1.0))
