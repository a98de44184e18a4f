"""Deformable convolution layer (Dai et al., *Deformable Convolutional Networks*, ICCV 2017)."""

from __future__ import annotations

from torch import Tensor

from metric_zoo.nn.offset import OffsetConv2d
from metric_zoo.ops.deform import deform_conv2d, deformed_grid
from metric_zoo.ops.padding import Pads


class DeformConv2d(OffsetConv2d):
    """Convolution whose every sample is moved by a predicted offset.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode: as in
            `torch.nn.Conv2d`; ``padding`` may also be ``((top, bottom), (left, right))``.
        offset_groups: offset fields; each serves ``in_channels / offset_groups`` channels.
        head_kernel_size: kernel of the head; None is the layer's own.
        head: ``full`` (published), ``separable``, ``pointwise``, ``bottleneck``, or ``auto``: see `PredictionHead`.

    Shape:
        ``(B, in_channels, H, W) -> (B, out_channels, Ho, Wo)``; the head predicts ``2 * offset_groups * kh * kw``
        channels, (dy, dx) per cell, in pixels.

    Raises:
        MetricZooError: for a value out of range or groups that do not divide the channels.
    """

    kind = "deformable"

    def _head_channels(self) -> int:
        return 2 * self._cells()

    def _positions(self, input: Tensor, pads: Pads) -> Tensor:
        return deformed_grid(self.sampler(input, pads), self.kernel_size, self.dilation)

    def _operator(self, input: Tensor, pads: Pads) -> Tensor:
        return deform_conv2d(input, self.sampler(input, pads), self.kernel(), **self._call_options(pads))
