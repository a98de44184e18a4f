"""What the later deformable convolutions share: offsets that are scaled, and factors of their own."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from metric_zoo.errors import MetricZooError
from metric_zoo.nn.config import is_number
from metric_zoo.nn.field import Field
from metric_zoo.nn.modulated import ModulatedDeformConv2d
from metric_zoo.nn.offset import DeformConfig
from metric_zoo.ops.padding import Pads


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

    def _field(self, input: Tensor, pads: Pads) -> Field:
        field = super()._field(input, pads)
        scale = self.config.offset_scale
        return field if scale == 1 else field._replace(values=scale * field.values)
