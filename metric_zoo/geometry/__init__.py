"""The mathematics: Randers metrics, how they are predicted, and how their unit balls are sampled. No layers here."""

# Before anything of this package: the operators follow a first import of torch, and need modules of it whole.
import torch  # noqa: F401

from metric_zoo.geometry.geodesic import geodesic_ball
from metric_zoo.geometry.heuristics import metric_from_image, sobel_gradient
from metric_zoo.geometry.implicit import ImplicitMetric, fit_randers, hull_ball
from metric_zoo.geometry.parametrize import (
    DRIFTS,
    PARAMETRIZATIONS,
    MatrixOptions,
    constrain_drift,
    identity_raw,
    metric_from_raw,
)
from metric_zoo.geometry.randers import RandersMetric
from metric_zoo.geometry.sampling import SAMPLINGS, BallSamples, ball_samples, grid_offsets

__all__ = [
    "DRIFTS",
    "PARAMETRIZATIONS",
    "SAMPLINGS",
    "BallSamples",
    "ImplicitMetric",
    "MatrixOptions",
    "RandersMetric",
    "ball_samples",
    "constrain_drift",
    "fit_randers",
    "geodesic_ball",
    "grid_offsets",
    "hull_ball",
    "identity_raw",
    "metric_from_image",
    "metric_from_raw",
    "sobel_gradient",
]
