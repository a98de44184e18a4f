"""What deformable, modulated and shifted convolution share: a head that predicts offsets."""

from __future__ import annotations

from dataclasses import dataclass

from metric_zoo.nn.base import SampledConv2d
from metric_zoo.nn.config import KindOptions, check_count, check_head
from metric_zoo.nn.head import PredictionHead


@dataclass(frozen=True)
class DeformConfig(KindOptions):
    """Options of `DeformConv2d`, `ModulatedDeformConv2d` and `ShiftedConv2d`.

    Attributes:
        offset_groups: number of offset fields; each serves an equal part of the channels.
        head_kernel_size: kernel of the offset head; None is the layer's own.
        head: form of the head, of `HEADS`; ``"auto"`` gives a grouped convolution the form that sees most without
            being larger than the convolution itself (the smallest, where none is), and a dense one the full head.
    """

    offset_groups: int = 1
    head_kernel_size: int | None = None
    head: str = "full"

    def __post_init__(self) -> None:
        check_count("offset_groups", self.offset_groups)
        check_head(self.head, self.head_kernel_size)


class OffsetConv2d(SampledConv2d):
    """Base class: options and counts."""

    options = DeformConfig
    config: DeformConfig
    sampler: PredictionHead

    def _sample_groups(self) -> int:
        return self.config.offset_groups

    def _cells(self) -> int:
        """Samples of one window."""
        return self.kernel_size[0] * self.kernel_size[1]
