"""DCNv3 (Wang et al., *InternImage*, CVPR 2023, https://arxiv.org/abs/2211.05778)."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.fx import Proxy

from metric_zoo.nn.config import check_name
from metric_zoo.nn.dcn.aggregate import aggregate
from metric_zoo.nn.dcn.group import GroupAggregation, check_pixels
from metric_zoo.nn.dcn.layout import ACTIVATIONS, NORMS, norm_to_last


class DCNv3(GroupAggregation):
    r"""Deformable convolution v3: a projected image, aggregated at offsets and with factors that a window predicts.

    .. math:: y[g](p) = \sum_i m_{gi}(p)\, x[g](p + s (g_i + d_{gi}(p))), \quad m_g = \mathrm{softmax}

    with parameters named and shaped as published, so that its checkpoints load. It computes what the published module
    does, on every device and without a build; at whole pixels the gradient of an offset is the mean of both sides,
    where the published one takes one of them.

    Args:
        channels: of input and output.
        kernel_size: cells a side of the window; K of them, P points are sampled.
        dw_kernel_size: of the depthwise convolution that predicts, odd; None is ``kernel_size``.
        stride: 1.
        pad: the one that keeps the size, ``dilation * (kernel_size - 1) / 2``.
        dilation: pixels between cells.
        group: G, parts of the channels that sample at points of their own.
        offset_scale: factor on the grid and on the offsets.
        act_layer: ``"GELU"``, ``"ReLU"`` or ``"SiLU"``.
        norm_layer: ``"LN"`` or ``"BN"``.
        center_feature_scale: mix in the value at the pixel itself, by a share for every group that is predicted, too.
        remove_center: leave the window's middle out: P = K - 1, else K.

    Attributes:
        offset: predicts ``G*P*2`` numbers: (x, y) of every point, in pixels; points with x OUTER, y inner. A checkpoint
            whose points are in another order has parameters of the same shapes: only one of another P can be told,
            and loading it fails with the key.
        mask: predicts ``G*P`` logits.

    Shape:
        ``(B, H, W, channels) -> (B, H, W, channels)``.

    Raises:
        MetricZooError: for a value out of range, groups that do not divide the channels, or an input that is not
            channels last.
    """

    head = "offset"

    def __init__(
        self,
        channels: int = 64,
        kernel_size: int = 3,
        dw_kernel_size: int | None = None,
        stride: int = 1,
        pad: int = 1,
        dilation: int = 1,
        group: int = 4,
        offset_scale: float = 1.0,
        act_layer: str = "GELU",
        norm_layer: str = "LN",
        center_feature_scale: bool = False,
        remove_center: bool = False,
        *,
        device=None,
        dtype=None,
    ) -> None:
        check_name("act_layer", act_layer, tuple(ACTIVATIONS))
        check_name("norm_layer", norm_layer, NORMS)
        window = kernel_size if dw_kernel_size is None else dw_kernel_size
        super().__init__(
            channels,
            kernel_size,
            stride,
            pad,
            dilation,
            group,
            offset_scale,
            window,
            center_feature_scale,
            remove_center,
        )
        like: dict[str, Any] = {"device": device, "dtype": dtype}
        depthwise = nn.Conv2d(channels, channels, window, padding=window // 2, groups=channels, **like)
        self.dw_conv = nn.Sequential(depthwise, norm_to_last(norm_layer, channels, like), ACTIVATIONS[act_layer]())
        self.offset = nn.Linear(channels, self._rows(self.points.count), **like)
        self.mask = nn.Linear(channels, group * self.points.count, **like)
        self.input_proj = nn.Linear(channels, channels, **like)
        self.output_proj = nn.Linear(channels, channels, **like)
        self._build_centre(like)
        self.reset_parameters()

    def _rows(self, points: int) -> int:
        return 2 * self.group * points

    def _offset(self, input: Tensor) -> Tensor:
        return self.offset(self.dw_conv(input.permute(0, 3, 1, 2)))

    def forward(self, input: Tensor) -> Tensor:
        """``(B, H, W, channels) -> `` the same."""
        if isinstance(input, Proxy):
            return self.recorded(input, input)
        check_pixels(input, self.channels)
        value, features = self.input_proj(input), self.dw_conv(input.permute(0, 3, 1, 2))
        positions = self.points.positions(self.offset(features), self.group)
        factors = self.points.factors(self.mask(features), self.group).softmax(2)
        return self.output_proj(self._mix_centre(aggregate(value, positions, factors, self.row), value, features))
