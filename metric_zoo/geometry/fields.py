"""What a metric's unit balls look like, pixel by pixel: shape, direction, size, asymmetry."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from metric_zoo.geometry.randers import RandersMetric


class BallFields(NamedTuple):
    """Of the unit tangent ball, each ``(B, G, H, W)``.

    Attributes:
        anisotropy: the long axis over the short one, at least 1 (of M's ellipse; the drift moves and stretches it).
        orientation: angle of the long axis in radians, in (-pi/2, pi/2], from the x axis (right) to the y axis (down).
        area: over that of the Euclidean unit disc.
        drift: length of omega in the dual norm, in [0, 1): 0 is symmetric.
    """

    anisotropy: Tensor
    orientation: Tensor
    area: Tensor
    drift: Tensor


def ball_fields(metric: RandersMetric) -> BallFields:
    r"""Anisotropy, orientation, area and drift of a metric field.

    The ball :math:`\sqrt{u^T M u} + \omega^T u \le 1` is an ellipse of area :math:`\pi (\det M)^{-1/2}
    (1 - |\omega|^2_{M^{-1}})^{-3/2}` (complete the square: the shifted form is :math:`M - \omega\omega^T`).
    """
    m11, m12, m22, _, _ = metric.components
    middle, radius = (m11 + m22) / 2, torch.hypot((m11 - m22) / 2, m12)
    anisotropy = torch.sqrt((middle + radius) / (middle - radius))
    # The long axis belongs to the small eigenvalue, at a right angle to the large one's direction.
    orientation = torch.atan2(-2 * m12 + 0.0, m22 - m11) / 2  # 0, not -0: its angle would be -pi
    drift = metric.drift_norm()
    area = (m11 * m22 - m12**2) ** -0.5 * (1 - drift**2) ** -1.5
    return BallFields(anisotropy, orientation, area, drift)
