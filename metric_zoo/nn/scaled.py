"""What the later deformable convolutions share: offsets that are scaled, and factors of their own."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from metric_zoo.errors import MetricZooError
from metric_zoo.geometry.constants import constants
from metric_zoo.nn.config import is_number
from metric_zoo.nn.modulated import ModulatedDeformConv2d
from metric_zoo.nn.offset import DeformConfig


@dataclass(frozen=True)
class ScaledDeformConfig(DeformConfig):
    """Options of `DCNv3Conv2d` and `DCNv4Conv2d`.

    Attributes:
        offset_scale: pixels of a predicted offset of 1.
    """

    offset_scale: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not is_number(self.offset_scale) or not 0 < self.offset_scale < float("inf"):
            raise MetricZooError(f"offset_scale={self.offset_scale!r}: expected a finite number > 0")


class ScaledDeformConv2d(ModulatedDeformConv2d):
    """Base class."""

    config: ScaledDeformConfig

    def _offsets(self, predicted: Tensor) -> Tensor:
        *_, scale = constants(self.config)
        return super()._offsets(predicted if scale == 1 else scale * predicted)
