"""Dilated convolution layer with any real factor."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from metric_zoo.geometry.constants import constants
from metric_zoo.geometry.precision import at_least_float32
from metric_zoo.geometry.sampling import grid_offsets
from metric_zoo.nn.base import SampledConv2d
from metric_zoo.nn.config import DilatedConfig
from metric_zoo.ops.padding import Padding, Pads, output_size
from metric_zoo.ops.sampled import sampled_conv2d


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

    kind = "dilated"
    config: DilatedConfig

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: Padding = 0,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        *,
        factor: float = 2.0,
        device=None,
        dtype=None,
    ) -> None:
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding,
            dilation,
            groups,
            bias,
            padding_mode,
            config=DilatedConfig(factor),
            device=device,
            dtype=dtype,
        )

    def _positions(self, input: Tensor, pads: Pads) -> Tensor:
        size = output_size(tuple(input.shape[-2:]), self.kernel_size, self.stride, pads, self.dilation)
        return self._shared_positions().expand(-1, -1, -1, *size)

    def _shared_positions(self) -> Tensor:
        """``(1, K, 2, 1, 1)``: the same at every pixel."""
        # In the precision of positions, which half types do not have.
        like = at_least_float32(self.weight.detach())
        return (grid_offsets(self.kernel_size, self.dilation) * self._factor()).to(like).view(1, -1, 2, 1, 1)

    def _factor(self) -> float:
        return constants(self.config)[0]

    def _operator(self, input: Tensor, pads: Pads) -> Tensor:
        factor = self._factor()
        growth = [d * (k - 1) * (factor - 1) for k, d in zip(self.kernel_size, self.dilation, strict=True)]
        if float(factor).is_integer() and all(g % 2 == 0 for g in growth):
            return self._dense(input, pads, [int(g) for g in growth])
        # Samples between pixels, or an even kernel whose stretched centre would lie half a pixel off.
        positions = self._shared_positions()
        return sampled_conv2d(input, self.kernel(), positions, groups=self.groups, **self._call_options(pads))

    def _dense(self, input: Tensor, pads: Pads, growth: list[int]) -> Tensor:
        """A whole factor is an ordinary dilated convolution, once the padding grows with the window."""
        (top, bottom), (left, right) = ((a + g // 2, b + g // 2) for (a, b), g in zip(pads, growth, strict=True))
        dilation = tuple(d * int(self.config.factor) for d in self.dilation)
        padded = F.pad(input, (left, right, top, bottom))
        return F.conv2d(padded, self.kernel(), self.bias, self.stride, 0, dilation, self.groups)
