"""Star convolution layer: star-shaped balls, beyond the ellipse that the metric-convolution paper names as its limit
(*Metric Convolutions*, ICCV 2025, https://arxiv.org/abs/2406.05400)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from metric_zoo.errors import MetricZooError
from metric_zoo.geometry.star import angles_of, convex, directions_of
from metric_zoo.nn.config import check_count
from metric_zoo.nn.formula import FormulaConfig, FormulaConv2d
from metric_zoo.nn.kind import Operator, kind
from metric_zoo.ops.padding import Pads
from metric_zoo.ops.star import star_conv2d


@dataclass(frozen=True)
class StarConfig(FormulaConfig):
    """Options of `StarConv2d`.

    Attributes:
        harmonics: of the logarithm of the radius by direction, N.
        convex: whether harmonics are shrunk until the ball is convex.
        shift: whether the ball moves, too.
    """

    harmonics: int = 2
    convex: bool = False
    shift: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("harmonics", self.harmonics)
        for name in ("convex", "shift"):
            if not isinstance(getattr(self, name), bool):
                raise MetricZooError(f"{name}={getattr(self, name)!r}: expected true or false")


def _draw(random, batch, groups, kernel_size, size) -> dict[str, Tensor]:
    return {"field": 0.3 * random(batch, 5 * groups, *size)}


def _run(call, input, weight, field, bias=None) -> Tensor:
    return star_conv2d(input, field, weight, bias, call.stride, call.padding, call.dilation, call.groups)


@kind("star", options=StarConfig, colour="#c2185b", marker="H", operator=Operator(_draw, _run))
class StarConv2d(FormulaConv2d):
    r"""Convolution over star-shaped balls: the samples lie at :math:`\rho(\theta_i)\, g_i`, g the ordinary grid.

    .. math:: \rho(\theta) = \exp\Bigl(a_0 + \sum_{n=1}^{N} a_n \cos n\theta + b_n \sin n\theta\Bigr)

    The Finsler norm of such a ball is :math:`F(u) = |u| / \rho(\angle u)`. The first harmonic resembles a drift, the
    second an anisotropy, the third a triangle.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode: as in
            `torch.nn.Conv2d`; ``padding`` may also be ``((top, bottom), (left, right))``.
        offset_groups: fields; each serves ``in_channels / offset_groups`` channels.
        head_kernel_size: kernel of the head; None is the layer's own.
        head: ``full``, ``separable``, ``pointwise``, ``bottleneck``, or ``auto``: see `PredictionHead`.
        limit: bound of every predicted number x, as ``limit * tanh(x / limit)``; None leaves them free.
        harmonics: N; the kernel needs at least ``2 * N + 1`` directions.
        convex: whether all harmonics are shrunk by one factor until the ball is convex, at the kernel's directions
            and 64 others; this takes 64 sums a pixel.
        shift: whether two numbers more move the ball.

    Shape:
        ``(B, in_channels, H, W) -> (B, out_channels, Ho, Wo)``; the head predicts ``2 * harmonics + 1`` channels per
        group: a_0, then a_n, b_n; with ``shift`` two more, (x, y) in pixels.

    Raises:
        MetricZooError: for a value out of range, groups that do not divide the channels, or a kernel with too few
            directions.
    """

    config: StarConfig

    def _rule(self) -> str:
        return "shifted_star" if self.config.shift else "star"

    def _numbers(self) -> int:
        return 2 * self.config.harmonics + 1 + 2 * self.config.shift

    def _check_fit(self) -> None:
        super()._check_fit()
        directions, harmonics = directions_of(self.kernel_size), self.config.harmonics
        if directions < 2 * harmonics + 1:
            raise MetricZooError(
                f"harmonics={harmonics}: a kernel of {self.kernel_size[0]}x{self.kernel_size[1]} has cells in "
                f"{directions} directions, expected at least {2 * harmonics + 1}"
            )

    def _predicted(self, input: Tensor, pads: Pads) -> Tensor:
        numbers = super()._predicted(input, pads)
        if not self.config.convex:
            return numbers
        harmonics, shift = numbers.split((2 * self.config.harmonics + 1, 2 * self.config.shift), 2)
        return torch.cat((convex(harmonics, angles_of(self.kernel_size, self.dilation)), shift), 2)
