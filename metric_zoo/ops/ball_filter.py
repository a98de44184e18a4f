"""Averages over the balls of a metric: adaptive smoothing of an image, without learning."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from metric_zoo.errors import MetricZooError
from metric_zoo.geometry.geodesic import geodesic_ball
from metric_zoo.geometry.randers import RandersMetric
from metric_zoo.geometry.sampling import ball_samples
from metric_zoo.ops.sampled import sampled_conv2d

BALLS = ("tangent", "geodesic")


def ball_filter(
    image: Tensor,
    metric: RandersMetric,
    kernel_size: int = 11,
    *,
    ball: str = "tangent",
    sampling: str = "polar",
    radius: float = 1.0,
) -> Tensor:
    r"""The mean of an image over the unit ball of a metric around every pixel.

    .. math:: out(p) = \frac1K \sum_i x(p + y_i(p))

    over the samples :math:`y_i` of the ball; those outside the image count nothing, and a pixel whose samples all lie
    there stays as it is (Metric Convolutions, ICCV 2025, https://arxiv.org/abs/2406.05400,
    heuristic filtering).

    Args:
        image: ``(B, C, H, W)``; all channels are averaged over the same balls.
        metric: ``(B, 5, H, W)`` packed, one for every pixel, feasible; see `metric_zoo.geometry.metric_from_image`.
        kernel_size: odd, 3 or more; ``kernel_size ** 2`` samples.
        ball: ``"tangent"`` (straight) or ``"geodesic"`` (see `metric_zoo.geometry.geodesic_ball`).
        sampling: of `metric_zoo.geometry.SAMPLINGS`.
        radius: of the ball.

    Returns:
        ``(B, C, H, W)``.

    Raises:
        MetricZooError: for an even kernel or one below 3, a radius that is not positive and finite, an unknown ball or
            sampling, a metric of another size or that is infeasible (with the first such pixel), or pixels that are not
            finite.
    """
    if kernel_size % 2 == 0:
        raise MetricZooError(f"kernel_size={kernel_size}: an even kernel has no pixel in its middle")
    if kernel_size < 3 or not 0 < radius < math.inf:
        raise MetricZooError(f"kernel_size={kernel_size}, radius={radius}: expected 3 or more, and a finite one > 0")
    if ball not in BALLS:
        raise MetricZooError(f"unknown ball {ball!r}; known: {BALLS}")
    if not bool(image.isfinite().all()):
        raise MetricZooError(f"image holds {int((~image.isfinite()).sum())} pixels that are not finite")
    metric.check_feasible()
    if ball == "geodesic":
        positions = geodesic_ball(metric, sampling, kernel_size, radius=radius)
    else:
        positions = radius * ball_samples(sampling, (kernel_size, kernel_size)).positions(metric)
    # A channel of ones counts the samples inside the image.
    padded = torch.cat((image, torch.ones_like(image[:, :1])), 1)
    weight = image.new_full((padded.shape[1], 1, kernel_size, kernel_size), 1 / kernel_size**2)
    total = sampled_conv2d(padded, weight, positions, padding=kernel_size // 2, groups=padded.shape[1])
    inside = total[:, -1:]
    return torch.where(inside > 0, total[:, :-1] / inside.where(inside > 0, torch.ones_like(inside)), image)
