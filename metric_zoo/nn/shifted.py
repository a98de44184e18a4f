"""Shifted convolution layer: the "entire deformable" convolution of the metric-convolution paper."""

from __future__ import annotations

from torch import Tensor

from metric_zoo.nn.field import Field
from metric_zoo.nn.kind import Operator, kind
from metric_zoo.nn.offset import DeformConfig, OffsetConv2d
from metric_zoo.ops.padding import Pads
from metric_zoo.ops.shifted import shifted_conv2d


def _draw(random, batch, groups, kernel_size, size) -> dict[str, Tensor]:
    return {"field": 2 * random(batch, 2 * groups, *size)}


def _run(call, input, weight, field, bias=None) -> Tensor:
    return shifted_conv2d(input, field, weight, bias, call.stride, call.padding, call.dilation)


@kind(
    "shifted",
    options=DeformConfig,
    colour="#2e9e6b",
    marker="D",
    featured=True,
    operator=Operator(_draw, _run),
)
class ShiftedConv2d(OffsetConv2d):
    """Convolution whose whole window is moved by one predicted shift per pixel.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode: as in
            `torch.nn.Conv2d`; ``padding`` may also be ``((top, bottom), (left, right))``.
        offset_groups: shifts per pixel; each serves ``in_channels / offset_groups`` channels.
        head_kernel_size: kernel of the head; None is the layer's own.
        head: ``full`` (published), ``separable``, ``pointwise``, ``bottleneck``, or ``auto``: see `PredictionHead`.
        max_offset: pixels along x and along y that no offset passes, by a tanh; None, as published, is no bound.

    Shape:
        ``(B, in_channels, H, W) -> (B, out_channels, Ho, Wo)``; the head predicts ``2 * offset_groups`` channels,
        (dy, dx) in pixels.

    Raises:
        MetricZooError: for a value out of range or groups that do not divide the channels.
    """

    def _head_channels(self) -> int:
        return 2 * self._sample_groups()

    def _field(self, input: Tensor, pads: Pads) -> Field:
        return Field(self._offsets(self.sampler(input, pads)).unflatten(1, (-1, 1, 2)), None, "offset")
