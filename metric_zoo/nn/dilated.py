"""Dilated convolution layer with any real factor."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from metric_zoo.errors import MetricZooError
from metric_zoo.geometry.constants import constants
from metric_zoo.geometry.precision import at_least_float32
from metric_zoo.geometry.sampling import grid_offsets
from metric_zoo.nn.base import SampledConv2d
from metric_zoo.nn.config import KindOptions, is_number
from metric_zoo.nn.field import Field
from metric_zoo.nn.kind import Promise, kind
from metric_zoo.ops.padding import Pads


@dataclass(frozen=True)
class DilatedConfig(KindOptions):
    """Options of `DilatedConv2d`.

    Attributes:
        factor: the kernel's grid is stretched by this much around its centre.
    """

    factor: float = 2.0

    def __post_init__(self) -> None:
        if not is_number(self.factor) or not self.factor > 0:
            raise MetricZooError(f"factor={self.factor!r}: expected a number > 0")


@kind("dilated", options=DilatedConfig, colour="#a0522d", marker="h", promise=Promise.NOTHING)
class DilatedConv2d(SampledConv2d):
    """Convolution whose grid is stretched by a fixed factor around each window's centre.

    The output keeps the size of the convolution with ``factor=1``: stretching moves samples, not windows.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode: as in
            `torch.nn.Conv2d`; ``padding`` may also be ``((top, bottom), (left, right))``.
        factor: positive; 1 is the ordinary convolution.

    Shape:
        ``(B, in_channels, H, W) -> (B, out_channels, Ho, Wo)``.

    Raises:
        MetricZooError: for a factor that is not positive.
    """

    config: DilatedConfig

    def _field(self, input: Tensor, pads: Pads) -> Field:
        # In the precision of positions, which half types do not have.
        like = at_least_float32(self.weight.detach())
        grid = grid_offsets(self.kernel_size, self.dilation).flip(1) * self._factor()
        return Field(grid.to(like).view(1, 1, -1, 2, 1, 1), None, "position")

    def _factor(self) -> float:
        return constants(self.config)[0]

    def _operator(self, input: Tensor, pads: Pads) -> Tensor:
        factor = self._factor()
        growth = [d * (k - 1) * (factor - 1) for k, d in zip(self.kernel_size, self.dilation, strict=True)]
        if float(factor).is_integer() and all(g % 2 == 0 for g in growth):
            return self._dense(input, pads, [int(g) for g in growth])
        # Samples between pixels, or an even kernel whose stretched centre would lie half a pixel off.
        return super()._operator(input, pads)

    def _dense(self, input: Tensor, pads: Pads, growth: list[int]) -> Tensor:
        """A whole factor is an ordinary dilated convolution, once the padding grows with the window."""
        (top, bottom), (left, right) = ((a + g // 2, b + g // 2) for (a, b), g in zip(pads, growth, strict=True))
        dilation = tuple(d * int(self.config.factor) for d in self.dilation)
        padded = F.pad(input, (left, right, top, bottom))
        return F.conv2d(padded, self.kernel(), self.bias, self.stride, 0, dilation, self.groups)
