"""Rules of fields that hold a packed metric, whose unit ball is sampled along rays from the window's centre."""

from __future__ import annotations

import torch
from torch import Tensor

from metric_zoo.geometry.randers import PACKED_CHANNELS, RandersMetric
from metric_zoo.geometry.sampling import RAY_SAMPLINGS, ball_samples, check_sampling
from metric_zoo.ops.rules.rule import Form, Rule


class Ball(Rule):
    """One of the samplings along rays; see `metric_zoo.geometry.ball_samples`."""

    form = Form.BALL

    def __init__(self, name: str) -> None:
        self.name = name

    def check(self, kernel_size: tuple[int, int]) -> None:
        check_sampling(self.name, kernel_size)

    def numbers(self, kernel_size: tuple[int, int], given: int) -> int:
        return PACKED_CHANNELS

    def table(self, kernel_size: tuple[int, int], dilation: tuple[int, int], numbers: int) -> Tensor:
        samples = ball_samples(self.name, kernel_size, dilation)
        return torch.cat((samples.displacement, samples.direction), dim=1)

    def eps(self, kernel_size: tuple[int, int]) -> float:
        return ball_samples(self.name, kernel_size).eps

    def places(self, field: Tensor, kernel_size: tuple[int, int], dilation: tuple[int, int]) -> tuple[Tensor, Tensor]:
        metric = RandersMetric(field.flatten(1, 3))
        positions = ball_samples(self.name, kernel_size, dilation).positions(metric)
        x, y = positions.unflatten(1, (field.shape[1], -1)).unbind(3)
        return y, x


BALLS = tuple(Ball(name) for name in RAY_SAMPLINGS)
