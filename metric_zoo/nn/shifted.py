"""Shifted convolution layer: the "entire deformable" convolution of the metric-convolution paper."""

from __future__ import annotations

from torch import Tensor

from metric_zoo.nn.offset import OffsetConv2d
from metric_zoo.ops.deform import deformed_grid
from metric_zoo.ops.padding import Pads
from metric_zoo.ops.shifted import shift_to_offset, shifted_conv2d


class ShiftedConv2d(OffsetConv2d):
    """Convolution whose whole window is moved by one predicted shift per pixel.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode: as in
            `torch.nn.Conv2d`; ``padding`` may also be ``((top, bottom), (left, right))``.
        offset_groups: shifts per pixel; each serves ``in_channels / offset_groups`` channels.
        head_kernel_size: kernel of the head; None is the layer's own.
        head: ``full`` (published), ``separable``, ``pointwise``, ``bottleneck``, or ``auto``: see `PredictionHead`.

    Shape:
        ``(B, in_channels, H, W) -> (B, out_channels, Ho, Wo)``; the head predicts ``2 * offset_groups`` channels,
        (dy, dx) in pixels.

    Raises:
        MetricZooError: for a value out of range or groups that do not divide the channels.
    """

    kind = "shifted"

    def _head_channels(self) -> int:
        return 2 * self.config.offset_groups

    def _positions(self, input: Tensor, pads: Pads) -> Tensor:
        offset = shift_to_offset(self.sampler(input, pads), self.kernel_size)
        return deformed_grid(offset, self.kernel_size, self.dilation)

    def _operator(self, input: Tensor, pads: Pads) -> Tensor:
        return shifted_conv2d(input, self.sampler(input, pads), self.kernel(), **self._call_options(pads))
