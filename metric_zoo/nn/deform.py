"""Deformable convolution layer (Dai et al., *Deformable Convolutional Networks*, ICCV 2017, https://arxiv.org/abs/1703.06211)."""

from __future__ import annotations

from torch import Tensor

from metric_zoo.nn.field import Field
from metric_zoo.nn.kind import Operator, kind
from metric_zoo.nn.offset import DeformConfig, OffsetConv2d
from metric_zoo.ops.deform import deform_conv2d
from metric_zoo.ops.padding import Pads


def draw_offset(random, batch, groups, kernel_size, size) -> dict[str, Tensor]:
    """As `metric_zoo.nn.kind.Operator` asks for it."""
    return {"field": 2 * random(batch, 2 * groups * kernel_size[0] * kernel_size[1], *size)}


def run(call, input, weight, field, bias=None, mask=None) -> Tensor:
    """As `metric_zoo.nn.kind.Operator` asks for it."""
    return deform_conv2d(input, field, weight, bias, call.stride, call.padding, call.dilation, mask)


@kind(
    "deformable",
    options=DeformConfig,
    colour="#e08a1e",
    marker="s",
    featured=True,
    operator=Operator(draw_offset, run),
)
class DeformConv2d(OffsetConv2d):
    """Convolution whose every sample is moved by a predicted offset.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode: as in
            `torch.nn.Conv2d`; ``padding`` may also be ``((top, bottom), (left, right))``.
        offset_groups: offset fields; each serves ``in_channels / offset_groups`` channels.
        head_kernel_size: kernel of the head; None is the layer's own.
        head: ``full`` (published), ``separable``, ``pointwise``, ``bottleneck``, or ``auto``: see `PredictionHead`.
        max_offset: pixels along x and along y that no offset passes, by a tanh; None, as published, is no bound.

    Shape:
        ``(B, in_channels, H, W) -> (B, out_channels, Ho, Wo)``; the head predicts ``2 * offset_groups * kh * kw``
        channels, (dy, dx) per cell, in pixels.

    Raises:
        MetricZooError: for a value out of range or groups that do not divide the channels.
    """

    def _head_channels(self) -> int:
        return 2 * self._cells() * self._sample_groups()

    def _field(self, input: Tensor, pads: Pads) -> Field:
        offset = self._offsets(self.sampler(input, pads))
        return Field(offset.unflatten(1, (-1, self._cells(), 2)), None, "offset")
