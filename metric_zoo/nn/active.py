"""Active convolution layer (Jeon, Kim, *Active Convolution*, CVPR 2017)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from metric_zoo.geometry.precision import at_least_float32
from metric_zoo.geometry.sampling import grid_offsets
from metric_zoo.nn.base import SampledConv2d
from metric_zoo.nn.config import ActiveConfig
from metric_zoo.ops.padding import Padding, Pads, output_size
from metric_zoo.ops.sampled import sampled_conv2d


class ActiveConv2d(SampledConv2d):
    """Convolution with one learnable offset per kernel cell, the same at every pixel.

    The parameter ``offset`` is ``(offset_groups * kh * kw, 2)``, (dy, dx) in pixels, and starts at zero.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode: as in
            `torch.nn.Conv2d`; ``padding`` may also be ``((top, bottom), (left, right))``.
        offset_groups: offset tables; each serves ``in_channels / offset_groups`` channels.

    Shape:
        ``(B, in_channels, H, W) -> (B, out_channels, Ho, Wo)``.

    Raises:
        MetricZooError: for a value out of range or groups that do not divide the channels.
    """

    kind = "active"
    config: ActiveConfig

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
        offset_groups: int = 1,
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
            config=ActiveConfig(offset_groups),
            device=device,
            dtype=dtype,
        )
        cells = offset_groups * self.kernel_size[0] * self.kernel_size[1]
        self.offset = nn.Parameter(torch.zeros(cells, 2, device=device, dtype=dtype))

    def reset_rule(self) -> None:
        """Start on the ordinary grid."""
        if hasattr(self, "offset"):  # the base class resets before the table exists; it is created at zero
            nn.init.zeros_(self.offset)

    def rule_parameters(self) -> list[nn.Parameter]:
        """The table of offsets."""
        return [self.offset]

    def _sample_groups(self) -> int:
        return self.config.offset_groups

    def _positions(self, input: Tensor, pads: Pads) -> Tensor:
        size = output_size(tuple(input.shape[-2:]), self.kernel_size, self.stride, pads, self.dilation)
        return self._shared_positions().expand(-1, -1, -1, *size)

    def _shared_positions(self) -> Tensor:
        """``(1, G*K, 2, 1, 1)``: the same at every pixel."""
        moved = at_least_float32(self.offset).flip(1)
        grid = grid_offsets(self.kernel_size, self.dilation).to(moved).repeat(self.config.offset_groups, 1)
        return (grid + moved).view(1, -1, 2, 1, 1)

    def _operator(self, input: Tensor, pads: Pads) -> Tensor:
        positions = self._shared_positions()
        return sampled_conv2d(input, self.kernel(), positions, groups=self.groups, **self._call_options(pads))
