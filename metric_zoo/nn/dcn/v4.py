"""DCNv4 (Xiong et al., *Efficient Deformable ConvNets*, CVPR 2024, https://arxiv.org/abs/2401.06197)."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor, nn
from torch.fx import Proxy

from metric_zoo.errors import MetricZooError
from metric_zoo.nn.dcn.aggregate import aggregate
from metric_zoo.nn.dcn.group import GroupAggregation, check_pixels

_ALIGNMENT = 8
"""The head's channels are a multiple of it, as the published kernel asks; those beyond what is needed are not read."""


class DCNv4(GroupAggregation):
    r"""Deformable convolution v4: as `DCNv3`, with factors that nothing bounds, and predicted at the pixel itself.

    .. math:: y[g](p) = \sum_i m_{gi}(p)\, x[g](p + s (g_i + d_{gi}(p)))

    with parameters named and shaped as published, so that its checkpoints load; the published program runs on CUDA
    alone. It starts with factors of 0, as published.

    Args:
        channels, kernel_size, stride, pad, dilation, group, offset_scale, remove_center: as in `DCNv3`.
        dw_kernel_size: of a depthwise convolution before the head, odd; None for none.
        center_feature_scale: mix in the value at the pixel itself, by a share for every group that the aggregated
            samples predict.
        output_bias: of the output's projection.
        without_pointwise: aggregate the input itself, without projections.

    Attributes:
        offset_mask: predicts, group after group, (x, y) of every point and then every factor; points with x OUTER, y
            inner. Its channels are rounded up to a multiple of 8.

    Shape:
        ``(B, H, W, channels)``, or ``(B, H*W, channels)`` as published, to the same.

    Raises:
        MetricZooError: as `DCNv3`; for rows of pixels that are not those of ``shape``, or of no square.
    """

    head = "offset_mask"

    def __init__(
        self,
        channels: int = 64,
        kernel_size: int = 3,
        stride: int = 1,
        pad: int = 1,
        dilation: int = 1,
        group: int = 4,
        offset_scale: float = 1.0,
        dw_kernel_size: int | None = None,
        center_feature_scale: bool = False,
        remove_center: bool = False,
        output_bias: bool = True,
        without_pointwise: bool = False,
        *,
        device=None,
        dtype=None,
    ) -> None:
        super().__init__(
            *(channels, kernel_size, stride, pad, dilation, group, offset_scale),
            *(dw_kernel_size, center_feature_scale, remove_center),
        )
        like: dict[str, Any] = {"device": device, "dtype": dtype}
        self.without_pointwise = without_pointwise
        if dw_kernel_size is not None:
            pads = dw_kernel_size // 2
            self.offset_mask_dw = nn.Conv2d(channels, channels, dw_kernel_size, padding=pads, groups=channels, **like)
        self.offset_mask = nn.Linear(channels, self._rows(self.points.count), **like)
        if not without_pointwise:
            self.value_proj = nn.Linear(channels, channels, **like)
            self.output_proj = nn.Linear(channels, channels, bias=output_bias, **like)
        self._build_centre(like)
        self.reset_parameters()

    def _rows(self, points: int) -> int:
        return math.ceil(3 * self.group * points / _ALIGNMENT) * _ALIGNMENT

    def forward(self, input: Tensor, shape: tuple[int, int] | None = None) -> Tensor:
        """The module's function.

        Args:
            input: ``(B, H, W, channels)`` or ``(B, H*W, channels)``.
            shape: (H, W) of the latter; None for a square.
        """
        if isinstance(input, Proxy):
            return self.recorded(input, input, shape)
        if input.dim() == 3:
            return self(input.unflatten(1, _sides(input, shape))).flatten(1, 2)
        check_pixels(input, self.channels)
        value = input if self.without_pointwise else self.value_proj(input)
        offset, mask = self._predicted(input)
        points, group = self.points, self.group
        samples = aggregate(value, points.positions(offset, group), points.factors(mask, group), self.row)
        samples = self._mix_centre(samples, value, samples)
        return samples if self.without_pointwise else self.output_proj(samples)

    def _offset(self, input: Tensor) -> Tensor:
        return self._predicted(input)[0]

    def _predicted(self, input: Tensor) -> tuple[Tensor, Tensor]:
        """``(B, H, W, channels) -> (B, H, W, G*P*2)`` and ``(B, H, W, G*P)``."""
        seen = input
        if self.dw_kernel_size is not None:
            seen = self.offset_mask_dw(input.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        count, group = self.points.count, self.group
        predicted = self.offset_mask(seen)[..., : 3 * group * count].unflatten(-1, (group, -1))
        offset, mask = (part.flatten(-2) for part in predicted.split((2 * count, count), -1))
        return offset, mask


def _sides(input: Tensor, shape: tuple[int, int] | None) -> tuple[int, int]:
    pixels = input.shape[1]
    height, width = (math.isqrt(pixels),) * 2 if shape is None else shape
    if height * width != pixels:
        raise MetricZooError(
            f"input has {pixels} pixels, expected {height}*{width} of shape={shape}"
            if shape is not None
            else f"input has {pixels} pixels, which are no square: give shape=(H, W)"
        )
    return height, width
