"""Deformable convolution, version 3, with a dense kernel (Wang et al., *InternImage*, CVPR 2023,
https://arxiv.org/abs/2211.05778)."""

from __future__ import annotations

import torch
from torch import Tensor

from metric_zoo.nn.deform import run
from metric_zoo.nn.kind import Operator, kind
from metric_zoo.nn.modulated import draw_modulated
from metric_zoo.nn.scaled import ScaledDeformConfig, ScaledDeformConv2d


def _factors(logits: Tensor) -> Tensor:
    """``(B, G, K, Ho, Wo)`` -> the same: K times the softmax over K."""
    return logits.shape[2] * torch.softmax(logits, 2)


def _run(call, input, weight, field, bias=None, *, mask) -> Tensor:
    factors = _factors(mask.unflatten(1, (call.fields, -1))).flatten(1, 2)
    return run(call, input, weight, field, bias, factors)


@kind("dcnv3", options=ScaledDeformConfig, colour="#7a3db8", marker=">", operator=Operator(draw_modulated, _run))
class DCNv3Conv2d(ScaledDeformConv2d):
    """Deformable convolution, version 3, as the kind of a convolution.

    The factors are K times a softmax over the K samples of a window and group: they share what there is, and a head of
    zeros leaves the convolution as it was. The published operator has no dense kernel (see `DCNv3`); here the
    convolution keeps its own.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode: as in
            `torch.nn.Conv2d`; ``padding`` may also be ``((top, bottom), (left, right))``.
        offset_groups: fields; each serves ``in_channels / offset_groups`` channels.
        head_kernel_size: kernel of the head; None is the layer's own.
        head: ``full``, ``separable``, ``pointwise``, ``bottleneck``, or ``auto``: see `PredictionHead`.
        max_offset: pixels along x and along y that no offset passes, by a tanh; None, as published, is no bound.
        offset_scale: pixels of a predicted offset of 1.

    Shape:
        ``(B, in_channels, H, W) -> (B, out_channels, Ho, Wo)``; the head predicts ``3 * offset_groups * kh * kw``
        channels: first all offsets, (dy, dx) per cell, then all factors, per group.

    Raises:
        MetricZooError: for a value out of range or groups that do not divide the channels.
    """

    def _mask(self, logits: Tensor) -> Tensor:
        return _factors(logits)
