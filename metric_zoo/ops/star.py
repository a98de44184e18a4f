"""Convolution over star-shaped balls: beyond the ellipse, which the metric-convolution paper names as its limit."""

from __future__ import annotations

import torch
from torch import Tensor

from metric_zoo.errors import MetricZooError
from metric_zoo.ops.dispatch import sampled
from metric_zoo.ops.padding import Padding
from metric_zoo.ops.rules import RULES
from metric_zoo.ops.window import check_fields, window_for


def star_conv2d(
    input: Tensor,
    harmonics: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | tuple[int, int] = 1,
    padding: Padding = 0,
    dilation: int | tuple[int, int] = 1,
    groups: int = 1,
    order: int = 2,
    shift: bool = False,
) -> Tensor:
    r"""Convolution whose samples lie at :math:`y_i = \rho(\theta_i)\, g_i`; grid cell g_i has the angle theta_i.

    .. math:: \rho(\theta) = \exp\Bigl(a_0 + \sum_{n=1}^{N} a_n \cos n\theta + b_n \sin n\theta\Bigr)

    Every such ball is star-shaped; its Finsler norm is :math:`F(u) = |u| / \rho(\angle u)`. That the ellipse limits
    what a unit ball can be is a remark of *Metric Convolutions* (ICCV 2025, https://arxiv.org/abs/2406.05400).

    Args:
        input: ``(B, C, H, W)``.
        harmonics: ``(B, n*G, Ho, Wo)``, with G dividing C; n = 2N + 1: a_0, then a_1, b_1, a_2, ...; angles count from
            x towards y. With ``shift`` two more, by which the ball moves, (x, y) in pixels.
        weight: ``(O, C/groups, kh, kw)``.
        bias: ``(O,)``.
        stride, padding, dilation, groups: as in `sampled_conv2d`.
        order: N, at least 1.
        shift: whether the ball moves.

    Returns:
        ``(B, O, Ho, Wo)``; for harmonics of zero `torch.nn.functional.conv2d`, up to the order of summation. A radius
        is at most a million times the grid's.

    Raises:
        MetricZooError: when shapes, dtypes or devices do not fit together, or for an order that is no whole number
            above 0.
    """
    if not isinstance(order, int) or isinstance(order, bool) or order < 1:
        raise MetricZooError(f"order={order!r}: expected a whole number >= 1")
    window = window_for(input, weight, bias, stride, padding, dilation, groups)
    rule = RULES["shifted_star" if shift else "star"]
    if not torch.compiler.is_compiling():
        rule.check(window.kernel_size)
    numbers = 2 * order + 1 + 2 * shift
    star_groups = check_fields("harmonics", harmonics, input, numbers, window)
    return sampled(input, weight, bias, harmonics.unflatten(1, (star_groups, 1, numbers)), None, rule.name, window)
