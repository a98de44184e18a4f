"""What deformable, modulated and shifted convolution share: a head that predicts offsets."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from metric_zoo.errors import MetricZooError
from metric_zoo.geometry.constants import constants
from metric_zoo.geometry.precision import at_least_float32
from metric_zoo.nn.base import SampledConv2d
from metric_zoo.nn.config import KindOptions, check_count, check_head, is_number
from metric_zoo.nn.head import PredictionHead

LEAST, MOST = 1e-6, 1e6
"""Pixels that an offset can be bounded by: below, positions count as equal; above is beyond every image."""


@dataclass(frozen=True)
class DeformConfig(KindOptions):
    """Options of `DeformConv2d`, `ModulatedDeformConv2d` and `ShiftedConv2d`.

    Attributes:
        offset_groups: number of offset fields; each serves an equal part of the channels.
        head_kernel_size: kernel of the offset head; None is the layer's own.
        head: form of the head, of `HEADS`; ``"auto"`` gives a grouped convolution the form that sees most without
            being larger than the convolution itself (the smallest, where none is), and a dense one the full head.
        max_offset: pixels along x and along y that no offset passes, by a tanh; None, as published, is no bound.
    """

    offset_groups: int = 1
    head_kernel_size: int | None = None
    head: str = "full"
    max_offset: float | None = None

    def __post_init__(self) -> None:
        check_count("offset_groups", self.offset_groups)
        check_head(self.head, self.head_kernel_size)
        if self.max_offset is not None and not (is_number(self.max_offset) and LEAST <= self.max_offset <= MOST):
            raise MetricZooError(
                f"max_offset={self.max_offset!r}: expected pixels, {LEAST:g} to {MOST:g}, or None for no bound"
            )


class OffsetConv2d(SampledConv2d):
    """Base class: options and counts, and offsets within bounds.

    Args:
        max_offset: of whatever is predicted, each component o becomes ``max_offset * tanh(o / max_offset)`` pixels:
            near 0 it is o, with the same slope, and near the bound it hardly learns.
    """

    options = DeformConfig
    config: DeformConfig
    sampler: PredictionHead

    def _sample_groups(self) -> int:
        return self.config.offset_groups

    def _cells(self) -> int:
        """Samples of one window."""
        return self.kernel_size[0] * self.kernel_size[1]

    def _offsets(self, predicted: Tensor) -> Tensor:
        """Offsets in pixels, of any shape, from what the head predicts of them; bounded where that is asked."""
        _, _, _, bound, *_ = constants(self.config)
        if bound is None:
            return predicted
        return bound * torch.tanh(at_least_float32(predicted) / bound)
