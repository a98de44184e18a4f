"""What kinds share whose samples follow from a few predicted numbers a window by a formula."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from metric_zoo.errors import MetricZooError
from metric_zoo.geometry.constants import constants
from metric_zoo.geometry.precision import at_least_float32
from metric_zoo.nn.base import SampledConv2d
from metric_zoo.nn.config import KindOptions, check_count, check_head, is_number
from metric_zoo.nn.field import Field
from metric_zoo.nn.head import PredictionHead
from metric_zoo.nn.offset import LEAST, MOST
from metric_zoo.ops.padding import Pads
from metric_zoo.ops.rules import RULES


@dataclass(frozen=True)
class FormulaConfig(KindOptions):
    """Options that these kinds share.

    Attributes:
        offset_groups: number of fields; each serves an equal part of the channels.
        head_kernel_size: kernel of the head; None is the layer's own.
        head: form of the head, of `HEADS`; ``"auto"`` gives a grouped convolution the form that sees most without
            being larger than the convolution itself (the smallest, where none is), and a dense one the full head.
        limit: bound of every predicted number x, as ``limit * tanh(x / limit)``; None leaves them free.
    """

    offset_groups: int = 1
    head_kernel_size: int | None = None
    head: str = "full"
    limit: float | None = None

    def __post_init__(self) -> None:
        check_count("offset_groups", self.offset_groups)
        check_head(self.head, self.head_kernel_size)
        if self.limit is not None and not (is_number(self.limit) and LEAST <= self.limit <= MOST):
            raise MetricZooError(
                f"limit={self.limit!r}: expected a number, {LEAST:g} to {MOST:g}, or None for no bound"
            )


class FormulaConv2d(SampledConv2d):
    """Base class: a kind names its rule, of `metric_zoo.ops.rules.RULES`."""

    options = FormulaConfig
    config: FormulaConfig
    sampler: PredictionHead

    def _rule(self) -> str:
        raise NotImplementedError

    def _numbers(self) -> int:
        """Of one window."""
        return RULES[self._rule()].numbers(self.kernel_size, 0)

    def _head_channels(self) -> int:
        return self._numbers() * self._sample_groups()

    def _sample_groups(self) -> int:
        return self.config.offset_groups

    def _check_fit(self) -> None:
        super()._check_fit()
        RULES[self._rule()].check(self.kernel_size)

    def _field(self, input: Tensor, pads: Pads) -> Field:
        return Field(self._predicted(input, pads)[:, :, None], None, self._rule())

    def _predicted(self, input: Tensor, pads: Pads) -> Tensor:
        """``(B, G, n, Ho, Wo)``."""
        numbers = self.sampler(input, pads).unflatten(1, (self._sample_groups(), -1))
        _, _, _, limit, *_ = constants(self.config)
        return numbers if limit is None else limit * torch.tanh(at_least_float32(numbers) / limit)
