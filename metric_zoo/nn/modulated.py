"""Modulated deformable convolution layer (Zhu et al., *Deformable ConvNets v2*, CVPR 2019,
https://arxiv.org/abs/1811.11168)."""

from __future__ import annotations

import torch
from torch import Tensor

from metric_zoo.nn.deform import draw_offset, run
from metric_zoo.nn.field import Field
from metric_zoo.nn.kind import Operator, kind
from metric_zoo.nn.offset import DeformConfig, OffsetConv2d
from metric_zoo.ops.padding import Pads


def draw_modulated(random, batch, groups, kernel_size, size) -> dict[str, Tensor]:
    """As `metric_zoo.nn.kind.Operator` asks for it."""
    mask = random(batch, groups * kernel_size[0] * kernel_size[1], *size)
    return {**draw_offset(random, batch, groups, kernel_size, size), "mask": mask}


@kind(
    "modulated",
    options=DeformConfig,
    colour="#d6456b",
    marker="v",
    operator=Operator(draw_modulated, run, thorough=True),
)
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
        max_offset: pixels along x and along y that no offset passes, by a tanh; None, as published, is no bound.

    Shape:
        ``(B, in_channels, H, W) -> (B, out_channels, Ho, Wo)``; the head predicts ``3 * offset_groups * kh * kw``
        channels: first all offsets, (dy, dx) per cell, then all mask logits.

    Raises:
        MetricZooError: for a value out of range or groups that do not divide the channels.
    """

    modulates = True

    def _head_channels(self) -> int:
        return 3 * self._cells() * self._sample_groups()

    def _field(self, input: Tensor, pads: Pads) -> Field:
        fields = self._cells() * self._sample_groups()
        offset, logits = self.sampler(input, pads).split((2 * fields, fields), dim=1)
        mask = self._mask(logits.unflatten(1, (-1, self._cells())))
        return Field(self._offsets(offset).unflatten(1, (-1, self._cells(), 2)), mask, "offset")

    def _mask(self, logits: Tensor) -> Tensor:
        """The factors that logits ``(B, G, K, Ho, Wo)`` stand for; 1 for zeros."""
        return 2 * torch.sigmoid(logits)
