"""What DCNv3 and DCNv4 share: groups of channels that sample where the pixel's own features say."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from metric_zoo.errors import MetricZooError
from metric_zoo.nn.config import check_count, is_number
from metric_zoo.nn.dcn.aggregate import Row
from metric_zoo.nn.dcn.points import Points
from metric_zoo.nn.field import Field
from metric_zoo.nn.leaf import Leaf
from metric_zoo.nn.rule import Reading, Sampling, SamplingRule, is_zero
from metric_zoo.nn.script import refuse_script
from metric_zoo.ops.padding import NO_PADS
from metric_zoo.ops.window import Window


class GroupAggregation(Leaf, Sampling):
    """Base class: sizes, their checks, and what mixes in the value at the pixel itself.

    Offsets are predicted at every pixel of the input, so that the output is of its size: stride 1, and padding that
    keeps it. The published modules take other strides, too, and fail on them, or read what is not there.
    """

    head: ClassVar[str]
    """The linear layer whose rows tell how many points a window has."""

    def __init__(
        self,
        channels: int,
        kernel_size: int,
        stride: int,
        pad: int,
        dilation: int,
        group: int,
        offset_scale: float,
        dw_kernel_size: int | None,
        center_feature_scale: bool,
        remove_center: bool,
    ) -> None:
        counts = {"channels": channels, "kernel_size": kernel_size, "dilation": dilation, "group": group}
        for name, value in counts.items():
            check_count(name, value)
        if channels % group:
            raise MetricZooError(f"group={group} does not divide channels={channels}")
        _check_size_is_kept(kernel_size, stride, pad, dilation)
        _check_odd("kernel_size", kernel_size if remove_center else 1, "without its middle cell")
        _check_odd("dw_kernel_size", 1 if dw_kernel_size is None else dw_kernel_size, "that keeps the image's size")
        if not is_number(offset_scale):
            raise MetricZooError(f"offset_scale={offset_scale!r}: expected a number")
        super().__init__()
        self.channels, self.group, self.kernel_size = channels, group, kernel_size
        self.dw_kernel_size, self.center_feature_scale = dw_kernel_size, center_feature_scale
        self.points = Points(kernel_size, dilation, offset_scale, bool(remove_center))
        self.row = Row((1, self.points.count), channels)

    def _build_centre(self, like: dict[str, Any]) -> None:
        self.center_feature_scale_proj_weight = self.center_feature_scale_proj_bias = None
        if self.center_feature_scale:
            self.center_feature_scale_proj_weight = nn.Parameter(torch.empty(self.group, self.channels, **like))
            self.center_feature_scale_proj_bias = nn.Parameter(torch.empty(self.group, **like))

    def _mix_centre(self, samples: Tensor, value: Tensor, query: Tensor) -> Tensor:
        """A share of the value at the pixel itself, one per group, that ``query`` decides."""
        weight, bias = self.center_feature_scale_proj_weight, self.center_feature_scale_proj_bias
        if weight is None:
            return samples
        share = F.linear(query, weight, bias).sigmoid().repeat_interleave(self.channels // self.group, -1)
        return samples * (1 - share) + value * share

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """The published start: every point on its grid, projections by Glorot's rule."""
        for name, layer in self.named_children():
            if not isinstance(layer, nn.Linear):
                continue
            if name.endswith("_proj"):
                nn.init.xavier_uniform_(layer.weight)
            else:
                layer.weight.zero_()
            if layer.bias is not None:
                layer.bias.zero_()
        for parameter in (self.center_feature_scale_proj_weight, self.center_feature_scale_proj_bias):
            if parameter is not None:
                parameter.zero_()

    def sampling_rule(self) -> SamplingRule:
        """As of `metric_zoo.nn.rule.Sampling`."""
        parameters = list(self.get_submodule(self.head).parameters())
        return SamplingRule(type(self).__name__, parameters, lambda: is_zero(parameters), self._reading)

    def _reading(self, input: Tensor) -> Reading:
        """Of ``(B, H, W, channels)``: every point of a group is the one cell of a window, whose centre is the pixel."""
        batch, height, width, _ = input.shape
        positions = self.points.positions(self._offset(input), self.group).flatten(1, 2).unsqueeze(2)
        window = Window((1, 1), (1, 1), NO_PADS, (1, 1), self.channels, (height, width))
        grid = self.points.grid(input.device, torch.float32).flip(1).repeat(self.group, 1)
        return Reading(Field(positions, None, "position"), window, (height, width), batch, grid)

    def _offset(self, input: Tensor) -> Tensor:
        """``(B, H, W, channels) -> (B, H, W, G*P*2)``, (x, y) of every point as it is predicted."""
        raise NotImplementedError

    def _rows(self, points: int) -> int:
        """Channels that `head` predicts for windows of as many points."""
        raise NotImplementedError

    def _load_from_state_dict(self, state_dict, prefix, metadata, strict, missing, unexpected, errors) -> None:
        super()._load_from_state_dict(state_dict, prefix, metadata, strict, missing, unexpected, errors)
        key, points = f"{prefix}{self.head}.weight", self.points
        other = points.kernel_size**2 - (not points.remove_center)
        if key in state_dict and len(state_dict[key]) == self._rows(other) != self._rows(points.count):
            errors.append(
                f"{key} is of windows with {other} points, this layer's have {points.count} in another order: build "
                f"it with remove_center={not points.remove_center}"
            )

    def extra_repr(self) -> str:
        """Sizes."""
        kernel_size, dilation, scale, removed = self.points
        return (
            f"{self.channels}, kernel_size={kernel_size}, dilation={dilation}, group={self.group}, "
            f"offset_scale={scale}, remove_center={removed}"
        )

    __prepare_scriptable__ = refuse_script


def check_pixels(input: Tensor, channels: int) -> None:
    """Raise unless ``input`` lies channels last.

    Raises:
        MetricZooError: with its shape.
    """
    if input.dim() != 4 or input.shape[-1] != channels:
        raise MetricZooError(f"input has shape {tuple(input.shape)}, expected (B, H, W, {channels}): channels last")


def _check_size_is_kept(kernel_size: int, stride: int, pad: int, dilation: int) -> None:
    if stride != 1:
        raise MetricZooError(
            f"stride={stride}: offsets are predicted at every pixel, so that only stride 1 has a meaning"
        )
    if 2 * pad != dilation * (kernel_size - 1):
        raise MetricZooError(
            f"pad={pad} with kernel_size={kernel_size}, dilation={dilation}: offsets are predicted at every pixel, "
            f"expected a pad of {dilation * (kernel_size - 1) / 2:g}, which keeps the size"
        )


def _check_odd(name: str, value: int, what: str) -> None:
    check_count(name, value)
    if value % 2 == 0:
        raise MetricZooError(f"{name}={value}: expected an odd one, as there is no even kernel {what}")
