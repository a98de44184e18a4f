"""Spatial transformer layer (Jaderberg et al., *Spatial Transformer Networks*, NeurIPS 2015,
https://arxiv.org/abs/1506.02025): one affine map an image, from pooled features."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from metric_zoo.geometry.precision import at_least_float32
from metric_zoo.nn.base import SampledConv2d
from metric_zoo.nn.config import KindOptions, check_count
from metric_zoo.nn.field import Field
from metric_zoo.nn.head import PooledHead
from metric_zoo.nn.kind import kind
from metric_zoo.ops.padding import Pads, output_size, unpadded


@dataclass(frozen=True)
class SpatialTransformerConfig(KindOptions):
    """Options of `SpatialTransformerConv2d`.

    Attributes:
        offset_groups: maps an image; each serves an equal part of the channels.
    """

    offset_groups: int = 1

    def __post_init__(self) -> None:
        check_count("offset_groups", self.offset_groups)


@kind("stn", options=SpatialTransformerConfig, colour="#5f6b6d", marker=".")
class SpatialTransformerConv2d(SampledConv2d):
    r"""Convolution that reads an image through one affine map of it.

    .. math:: y_i(p) = A\, (c(p) + g_i - o) + t + o - c(p)

    Every sample of the ordinary convolution, at :math:`c(p) + g_i`, is moved by a map around the image's centre o, with
    A and t predicted from the means of the input's channels.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode: as in
            `torch.nn.Conv2d`; ``padding`` may also be ``((top, bottom), (left, right))``.
        offset_groups: maps an image; each serves ``in_channels / offset_groups`` channels.

    Shape:
        ``(B, in_channels, H, W) -> (B, out_channels, Ho, Wo)``; the head predicts ``6 * offset_groups`` numbers an
        image: the entries of A - I by rows, then t, in (x, y) and pixels.

    Raises:
        MetricZooError: for a value out of range or groups that do not divide the channels.
    """

    config: SpatialTransformerConfig
    sampler: PooledHead

    def _head_channels(self) -> int:
        return 6 * self.config.offset_groups

    def _sample_groups(self) -> int:
        return self.config.offset_groups

    def _build_head(self, device, dtype) -> PooledHead:
        return PooledHead(self.in_channels, self._head_channels(), device=device, dtype=dtype)

    def _field(self, input: Tensor, pads: Pads) -> Field:
        raw = at_least_float32(self.sampler(input, pads))
        xx, xy, yx, yy, t_x, t_y = raw.unflatten(1, (self._sample_groups(), 1, 6)).unbind(3)
        x, y = self._from_centre(input, pads, raw)
        numbers = torch.broadcast_tensors(xx, xy, yx, yy, t_x + xx * x + xy * y, t_y + yx * x + yy * y)
        return Field(torch.stack(numbers, 3), None, "affine")

    def _from_centre(self, input: Tensor, pads: Pads, like: Tensor) -> tuple[Tensor, Tensor]:
        """x ``(Wo,)`` and y ``(Ho, 1)`` of the windows' centres, in pixels from the image's."""
        image, pads = unpadded(input, pads)
        size = (image.shape[-2], image.shape[-1])
        grid = (self.kernel_size, self.stride, pads, self.dilation)
        options = {"device": like.device, "dtype": like.dtype}
        y, x = (
            torch.arange(count, **options) * stride + (dilation * (kernel - 1) / 2 - before - (side - 1) / 2)
            for count, stride, dilation, kernel, (before, _), side in zip(
                output_size(size, *grid), self.stride, self.dilation, self.kernel_size, pads, size, strict=True
            )
        )
        return x, y[:, None]
