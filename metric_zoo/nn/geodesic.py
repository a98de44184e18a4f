"""Geodesic convolution layer: the metric convolution over unit geodesic balls (Metric Convolutions, ICCV 2025,
https://arxiv.org/abs/2406.05400)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from metric_zoo.errors import MetricZooError
from metric_zoo.geometry.geodesic import STEPS, Rays, geodesic_positions
from metric_zoo.geometry.randers import RandersMetric
from metric_zoo.nn.field import Field
from metric_zoo.nn.kind import kind
from metric_zoo.nn.metric import MetricConfig, MetricConv2d
from metric_zoo.ops.padding import Pads

LEAST = 1 / 16
"""Of the eigenvalues of M: no ball without drift is more than 4 times the Euclidean one. And of 1 - |omega|."""


@dataclass(frozen=True)
class GeodesicConfig(MetricConfig):
    """Options of `GeodesicConv2d`: those of `MetricConv2d`, as far as geodesics can be followed."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.eps_omega < LEAST:
            raise MetricZooError(f"eps_omega={self.eps_omega}: geodesic balls need {LEAST} or more")
        if 2 * self.scale[1] <= LEAST and self.parametrization.startswith("eigen_scaled"):
            raise MetricZooError(f"scale={self.scale}: eigenvalues up to {LEAST} are raised to it, give more")


@kind("geodesic", options=GeodesicConfig, colour="#1ba3b8", marker="P")
class GeodesicConv2d(MetricConv2d):
    r"""Convolution over unit geodesic balls of a predicted Randers metric.

    As `MetricConv2d`, whose arguments it takes, but its samples follow the geodesics of the predicted field
    (`metric_zoo.geometry.geodesic_ball`) instead of straight lines: they bend where the metric changes, so that a
    ball need not be convex. Where the field is constant both are the same, sample by sample, as long as the metric is
    not bounded: a ball is at most 4 times the Euclidean one, before its drift, or geodesics would be too long to be
    learned. A geodesic takes 8 steps, or one for every quarter of a pixel of the ordinary kernel's reach; where balls
    are long and the metric is rough, their ends are approximate. Positions are stored: a few geodesics a pixel,
    integrated again by the backward pass.

    Shape:
        ``(B, in_channels, H, W) -> (B, out_channels, Ho, Wo)``, the size of the ordinary convolution.

    Raises:
        MetricZooError: as `MetricConv2d`; for an ``eps_omega`` below 1/16, or a ``scale`` below 1/32.

    Example:
        >>> import torch, metric_zoo as mz
        >>> layer = mz.nn.GeodesicConv2d(8, 16, 3, padding=1)
        >>> layer(torch.randn(2, 8, 12, 12)).shape
        torch.Size([2, 16, 12, 12])
    """

    config: GeodesicConfig
    straight = False

    def _build_rule(self, device, dtype) -> None:
        super()._build_rule(device, dtype)
        with torch.device("cpu"):  # a table of plain numbers, also of a layer that is built on the meta device
            self._rays = Rays.of(self._samples())
        # Half a pixel each for balls of twice the Euclidean one.
        self._steps = max(STEPS, math.ceil(4 * max(self._rays.reach)))

    def _metric(self, input: Tensor, pads: Pads) -> RandersMetric:
        # Longer geodesics cross more of the field than their steps resolve, and the gradient of where they end grows
        # exponentially with the way: one pixel's step would throw the whole image's metrics out of range.
        return super()._metric(input, pads).bounded(LEAST)

    def _field(self, input: Tensor, pads: Pads) -> Field:
        metric = self._metric(input, pads)
        positions = geodesic_positions(metric, self._samples(), self._rays, self.stride, steps=self._steps)
        return Field.at(positions, self._sample_groups())
