r"""Star-shaped balls, by the radius in every direction.

.. math:: \rho(\theta) = \exp\Bigl(a_0 + \sum_{n=1}^{N} a_n \cos n\theta + b_n \sin n\theta\Bigr)

Their Finsler norm is :math:`F(u) = |u| / \rho(\angle u)`: beyond the ellipse, which *Metric Convolutions* (ICCV 2025,
https://arxiv.org/abs/2406.05400) names as its limit.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from metric_zoo.geometry.sampling import grid_offsets

LARGEST = 6 * math.log(10)
"""Of a radius' logarithm: a radius of a million pixels is beyond every image; bounding it keeps gradients finite."""


def harmonics_at(angles: Tensor, harmonics: int) -> Tensor:
    """What 1, then cos and sin of every harmonic, are at some angles.

    Args:
        angles: ``(N,)``, radians.
        harmonics: how many, 0 or more.

    Returns:
        ``(N, 2 * harmonics + 1)``.
    """
    columns = [torch.ones_like(angles)]
    for n in range(1, harmonics + 1):
        columns += [torch.cos(n * angles), torch.sin(n * angles)]
    return torch.stack(columns, 1)


def directions_of(kernel_size: tuple[int, int]) -> int:
    """In how many directions from its centre a kernel has cells."""
    height, width = kernel_size
    # Twice the distances from the centre, whole numbers.
    cells = [(2 * y - height + 1, 2 * x - width + 1) for y in range(height) for x in range(width)]
    return len({(y // math.gcd(y, x), x // math.gcd(y, x)) for y, x in cells if y or x})


def angles_of(kernel_size: tuple[int, int], dilation: tuple[int, int] = (1, 1)) -> Tensor:
    """The directions of a kernel's cells and 64 evenly spaced ones, ``(N,)`` float64, radians."""
    x, y = grid_offsets(kernel_size, dilation).unbind(1)
    own = torch.atan2(y, x)[(x != 0) | (y != 0)]
    return torch.cat((own, torch.arange(64, dtype=torch.float64) * (2 * math.pi / 64)))


def convex(raw: Tensor, angles: Tensor) -> Tensor:
    r"""Harmonics shrunk, all by one factor, until their ball is convex.

    A ball is convex iff :math:`1/\rho + (1/\rho)'' \ge 0`; with :math:`L = \log \rho` that is
    :math:`1 + L'^2 - L'' \ge 0`, in which the factor s solves a quadratic equation at every angle.

    Args:
        raw: ``(B, G, 2N + 1, H, W)``: a_0, then a_n, b_n.
        angles: ``(A,)``, radians, at which it shall hold.

    Returns:
        The same with all but a_0 multiplied by the largest s <= 1 such that the inequality holds for every factor
        from 0 to s; unchanged where the ball is convex.
    """
    first, *others = raw.unbind(2)
    harmonics = len(others) // 2
    n = torch.arange(1, harmonics + 1, dtype=torch.float64).repeat_interleave(2)
    at = harmonics_at(angles, harmonics)[:, 1:]
    slopes = torch.stack((-at[:, 1::2], at[:, 0::2]), 2).flatten(1) * n
    slope, bend = (_expanded(others, table) for table in (slopes, -at * n * n))
    # 1 - s L'' + s^2 L'^2 has its smaller root at 2 / (L'' + sqrt(L''^2 - 4 L'^2)); without one it holds for every s.
    inner = bend * bend - 4 * slope * slope
    crosses = (bend > 0) & (inner > 0)
    root = torch.where(crosses, inner, torch.ones_like(inner)).sqrt()
    share = torch.where(crosses, 2 / torch.where(crosses, bend + root, torch.ones_like(bend)), torch.ones_like(bend))
    share = share.amin(2).clamp(max=1)
    return torch.stack((first, *(share * other for other in others)), 2)


def _expanded(values: list[Tensor], table: Tensor) -> Tensor:
    """``(B, G, A, H, W)``: the sum of ``(B, G, H, W)`` fields times the columns of ``(A, n)``."""
    columns = table.to(values[0])[..., None, None].unbind(1)
    first, *others = (value[:, :, None] * column for value, column in zip(values, columns, strict=True))
    return sum(others, first)
