"""Active convolution layer (Jeon, Kim, *Active Convolution*, CVPR 2017, https://arxiv.org/abs/1703.09076)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from metric_zoo.geometry.precision import at_least_float32
from metric_zoo.geometry.sampling import grid_offsets
from metric_zoo.nn.base import SampledConv2d
from metric_zoo.nn.config import KindOptions, check_count
from metric_zoo.nn.field import Field
from metric_zoo.nn.kind import Operator, kind
from metric_zoo.ops.padding import Pads
from metric_zoo.ops.sampled import sampled_conv2d


@dataclass(frozen=True)
class ActiveConfig(KindOptions):
    """Options of `ActiveConv2d`.

    Attributes:
        offset_groups: number of offset tables; each serves an equal part of the channels.
    """

    offset_groups: int = 1

    def __post_init__(self) -> None:
        check_count("offset_groups", self.offset_groups)


def _draw(random, batch, groups, kernel_size, size) -> dict[str, Tensor]:
    return {"field": 2 * random(1, groups * kernel_size[0] * kernel_size[1], 2, 1, 1)}


def _run(call, input, weight, field, bias=None) -> Tensor:
    return sampled_conv2d(input, weight, field, bias, call.stride, call.padding, call.dilation, call.groups)


@kind(
    "active",
    options=ActiveConfig,
    colour="#8a7a2c",
    marker="*",
    operator=Operator(_draw, _run),
)
class ActiveConv2d(SampledConv2d):
    """Convolution with one learnable offset per kernel cell, the same at every pixel.

    The parameter ``offset`` is ``(offset_groups * kh * kw, 2)``, (dy, dx) in pixels, and starts at zero.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode: as in
            `torch.nn.Conv2d`; ``padding`` may also be ``((top, bottom), (left, right))``.
        offset_groups: offset tables; each serves ``in_channels / offset_groups`` channels.

    Shape:
        ``(B, in_channels, H, W) -> (B, out_channels, Ho, Wo)``.

    Raises:
        MetricZooError: for a value out of range or groups that do not divide the channels.
    """

    config: ActiveConfig

    def reset_rule(self) -> None:
        """Start on the ordinary grid."""
        nn.init.zeros_(self.offset)

    def rule_parameters(self) -> list[nn.Parameter]:
        """The table of offsets."""
        return [self.offset]

    def _build_rule(self, device, dtype) -> None:
        super()._build_rule(device, dtype)
        cells = self.config.offset_groups * self.kernel_size[0] * self.kernel_size[1]
        self.offset = nn.Parameter(torch.zeros(cells, 2, device=device, dtype=dtype))

    def _sample_groups(self) -> int:
        return self.config.offset_groups

    def _field(self, input: Tensor, pads: Pads) -> Field:
        moved = at_least_float32(self.offset)
        grid = grid_offsets(self.kernel_size, self.dilation).flip(1).to(moved).repeat(self._sample_groups(), 1)
        # The same at every pixel.
        return Field((grid + moved).view(1, self._sample_groups(), -1, 2, 1, 1), None, "position")
