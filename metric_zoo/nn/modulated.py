"""Modulated deformable convolution layer (Zhu et al., *Deformable ConvNets v2*, CVPR 2019)."""

from __future__ import annotations

import torch
from torch import Tensor

from metric_zoo.nn.offset import OffsetConv2d
from metric_zoo.ops.deform import deform_conv2d, deformed_grid
from metric_zoo.ops.padding import Pads


class ModulatedDeformConv2d(OffsetConv2d):
    """Deformable convolution with a predicted factor on every sample.

    The factor is ``2 * sigmoid``, so that a head of zeros leaves the convolution as it was (a plain sigmoid starts at
    one half and would halve every pretrained response).

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode: as in
            `torch.nn.Conv2d`; ``padding`` may also be ``((top, bottom), (left, right))``.
        offset_groups: offset fields; each serves ``in_channels / offset_groups`` channels.
        head_kernel_size: kernel of the head; None is the layer's own.
        head: ``full`` (published), ``separable``, ``pointwise``, ``bottleneck``, or ``auto``: see `PredictionHead`.

    Shape:
        ``(B, in_channels, H, W) -> (B, out_channels, Ho, Wo)``; the head predicts ``3 * offset_groups * kh * kw``
        channels: first all offsets, (dy, dx) per cell, then all mask logits.

    Raises:
        MetricZooError: for a value out of range or groups that do not divide the channels.
    """

    kind = "modulated"
    modulates = True

    def _head_channels(self) -> int:
        return 3 * self._cells()

    def _offset_and_mask(self, input: Tensor, pads: Pads) -> tuple[Tensor, Tensor]:
        offset, logits = self.sampler(input, pads).split((2 * self._cells(), self._cells()), dim=1)
        return offset, 2 * torch.sigmoid(logits)

    def _positions(self, input: Tensor, pads: Pads) -> Tensor:
        return deformed_grid(self._offset_and_mask(input, pads)[0], self.kernel_size, self.dilation)

    def _is_unmodulated(self, input: Tensor, pads: Pads) -> bool:
        return bool((self._offset_and_mask(input, pads)[1] == 1).all())

    def _operator(self, input: Tensor, pads: Pads) -> Tensor:
        offset, mask = self._offset_and_mask(input, pads)
        return deform_conv2d(input, offset, self.kernel(), mask=mask, **self._call_options(pads))
