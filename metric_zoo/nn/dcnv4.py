"""Deformable convolution, version 4, with a dense kernel (Xiong et al., *Efficient Deformable ConvNets*, CVPR 2024,
https://arxiv.org/abs/2401.06197)."""

from __future__ import annotations

from torch import Tensor

from metric_zoo.nn.deform import run
from metric_zoo.nn.kind import Operator, kind
from metric_zoo.nn.modulated import draw_modulated
from metric_zoo.nn.scaled import ScaledDeformConfig, ScaledDeformConv2d


def _run(call, input, weight, field, bias=None, *, mask) -> Tensor:
    return run(call, input, weight, field, bias, 1 + mask)


@kind("dcnv4", options=ScaledDeformConfig, colour="#3d5ab8", marker="<", operator=Operator(draw_modulated, _run))
class DCNv4Conv2d(ScaledDeformConv2d):
    """Deformable convolution, version 4, as the kind of a convolution.

    The factors are 1 plus what the head predicts, without a bound: a head of zeros leaves the convolution as it was.
    The published operator has no dense kernel (see `DCNv4`); here the convolution keeps its own.

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
        return 1 + logits
