"""Dynamic snake convolution layer (Qi et al., *Dynamic Snake Convolution*, ICCV 2023, https://arxiv.org/abs/2307.08388)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from metric_zoo.nn.config import check_name
from metric_zoo.nn.formula import FormulaConfig, FormulaConv2d
from metric_zoo.nn.kind import Operator, kind
from metric_zoo.ops.rules import RULES
from metric_zoo.ops.rules.snake import AXES
from metric_zoo.ops.snake import snake_conv2d


@dataclass(frozen=True)
class SnakeConfig(FormulaConfig):
    """Options of `SnakeConv2d`.

    Attributes:
        axis: along which the snake lies: ``"x"``, its cells move in y, or ``"y"``, they move in x.
        limit: bound of every step, in pixels; the published one is 1.
    """

    limit: float | None = 1.0
    axis: str = "x"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_name("axis", self.axis, AXES)


def _draw(random, batch, groups, kernel_size, size) -> dict[str, Tensor]:
    return {"field": random(batch, RULES["snake_x"].numbers(kernel_size, 0) * groups, *size)}


def _run(call, input, weight, field, bias=None) -> Tensor:
    return snake_conv2d(input, field, weight, bias, call.stride, call.padding, call.dilation, call.groups)


@kind("snake", options=SnakeConfig, colour="#8c564b", marker="8", operator=Operator(_draw, _run))
class SnakeConv2d(FormulaConv2d):
    """Convolution whose rows (or columns) bend: every cell moves by the sum of the steps from the middle out to it.

    The published layer has a kernel of one such row. Here every row of the kernel is one, so that any convolution can
    become it; the middle cells stay on the grid. Steps are bounded as published, by tanh. They are summed out to the
    last cell, as in the paper; the published program (https://github.com/YaoleiQi/DSCNet, ``S3_DSConv.py``) leaves the
    outermost cells with their own step alone, and is equal everywhere else.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode: as in
            `torch.nn.Conv2d`; ``padding`` may also be ``((top, bottom), (left, right))``.
        offset_groups: fields; each serves ``in_channels / offset_groups`` channels.
        head_kernel_size: kernel of the head; None is the layer's own.
        head: ``full``, ``separable``, ``pointwise``, ``bottleneck``, or ``auto``: see `PredictionHead`.
        limit: bound of every step, softly, in pixels; None leaves them free.
        axis: ``"x"``, where rows bend and cells move in y, or ``"y"``, where columns bend and cells move in x.

    Shape:
        ``(B, in_channels, H, W) -> (B, out_channels, Ho, Wo)``; the head predicts one step for each cell that is not
        in the middle of its row, in row-major order, times ``offset_groups``.

    Raises:
        MetricZooError: for a value out of range, groups that do not divide the channels, or a kernel without cells
            beside its middle along the axis.
    """

    config: SnakeConfig

    def _rule(self) -> str:
        return f"snake_{self.config.axis}"
