"""Dynamic snake convolution (Qi et al., *Dynamic Snake Convolution*, ICCV 2023, https://arxiv.org/abs/2307.08388)."""

from __future__ import annotations

import torch
from torch import Tensor

from metric_zoo.errors import MetricZooError
from metric_zoo.ops.dispatch import sampled
from metric_zoo.ops.padding import Padding
from metric_zoo.ops.rules import RULES
from metric_zoo.ops.rules.snake import AXES
from metric_zoo.ops.window import check_fields, window_for


def snake_conv2d(
    input: Tensor,
    steps: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | tuple[int, int] = 1,
    padding: Padding = 0,
    dilation: int | tuple[int, int] = 1,
    groups: int = 1,
    axis: str = "x",
) -> Tensor:
    """Convolution whose rows (or columns) bend: every cell moves by the sum of the steps from the middle out to it.

    Args:
        input: ``(B, C, H, W)``.
        steps: ``(B, n*G, Ho, Wo)`` in pixels, with G dividing C: one step for each of the n cells of the kernel that
            are not in the middle of their row, in row-major order. The middle cells stay on the grid; in rows of an
            even number both do.
        weight: ``(O, C/groups, kh, kw)``.
        bias: ``(O,)``.
        stride, padding, dilation, groups: as in `sampled_conv2d`.
        axis: ``"x"``, where rows bend and cells move in y, or ``"y"``, where columns bend and cells move in x.

    Returns:
        ``(B, O, Ho, Wo)``; for steps of zero `torch.nn.functional.conv2d`, up to the order of summation.

    Raises:
        MetricZooError: when shapes, dtypes or devices do not fit together, for an unknown axis, or for a kernel that
            has no cells beside the middle.
    """
    if axis not in AXES:
        raise MetricZooError(f"axis={axis!r}: expected one of {AXES}")
    window = window_for(input, weight, bias, stride, padding, dilation, groups)
    rule = RULES[f"snake_{axis}"]
    if not torch.compiler.is_compiling():
        rule.check(window.kernel_size)
    numbers = rule.numbers(window.kernel_size, 0)
    snake_groups = check_fields("steps", steps, input, numbers, window)
    return sampled(input, weight, bias, steps.unflatten(1, (snake_groups, 1, numbers)), None, rule.name, window)
