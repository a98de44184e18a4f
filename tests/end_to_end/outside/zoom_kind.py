"""A kind of convolution as another package would bring it: the window's grid, zoomed by one learned number."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from metric_zoo.errors import MetricZooError
from metric_zoo.geometry import grid_offsets
from metric_zoo.nn import SampledConv2d
from metric_zoo.nn.config import KindOptions, is_number
from metric_zoo.nn.field import Field
from metric_zoo.nn.kind import kind


@dataclass(frozen=True)
class ZoomConfig(KindOptions):
    """Attributes:
    start: the first zoom.
    """

    start: float = 1.0

    def __post_init__(self) -> None:
        if not is_number(self.start) or not self.start > 0:
            raise MetricZooError(f"start={self.start!r}: expected a number > 0")


@kind("zoom", options=ZoomConfig, colour="#123456", marker="X", label="zoomed")
class ZoomConv2d(SampledConv2d):
    """Convolution whose grid is stretched around its centre by a learned factor.

    Args:
        start: the first zoom.
    """

    config: ZoomConfig

    def reset_rule(self) -> None:
        """Start as asked for."""
        nn.init.constant_(self.zoom, self.config.start)

    def rule_parameters(self) -> list[nn.Parameter]:
        """The factor."""
        return [self.zoom]

    def _build_rule(self, device, dtype) -> None:
        super()._build_rule(device, dtype)
        self.zoom = nn.Parameter(torch.ones(1, device=device, dtype=dtype))

    def _field(self, input: Tensor, pads) -> Field:
        grid = grid_offsets(self.kernel_size, self.dilation).flip(1).to(self.zoom)
        return Field((self.zoom * grid).view(1, 1, -1, 2, 1, 1), None, "position")
