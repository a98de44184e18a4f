"""Metrics from the image itself, without learning (Metric Convolutions, ICCV 2025, https://arxiv.org/abs/2406.05400,
heuristic filtering)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from metric_zoo.errors import MetricZooError
from metric_zoo.geometry.parametrize import EPS, spectral_matrix, unit_direction
from metric_zoo.geometry.randers import RandersMetric

AXES = ("grad", "grad_orth")
DRIFT_DIRECTIONS = ("grad", "grad_orth", "-grad", "-grad_orth")


def sobel_gradient(image: Tensor) -> tuple[Tensor, Tensor]:
    """Sobel derivatives ``(gx, gy)`` of a ``(B, C, H, W)`` image, borders replicated, not normalised.

    The sign and scale are those of ``scipy.ndimage.sobel(image, mode="nearest")``.
    """
    smooth, difference = image.new_tensor((1.0, 2.0, 1.0)), image.new_tensor((-1.0, 0.0, 1.0))
    kernels = torch.stack((torch.outer(smooth, difference), torch.outer(difference, smooth))).unsqueeze(1)
    padded = F.pad(image, (1, 1, 1, 1), mode="replicate").flatten(0, 1).unsqueeze(1)
    gradient = F.conv2d(padded, kernels).unflatten(0, image.shape[:2])
    return gradient[:, :, 0], gradient[:, :, 1]


def metric_from_image(
    image: Tensor,
    *,
    axis: str = "grad",
    anisotropy: float = 100.0,
    iota: float = 0.1,
    tau: float = 0.0,
    drift: str = "grad",
) -> RandersMetric:
    r"""A Randers metric adapted to the edges of an image.

    With Sobel gradients, :math:`g = |\nabla|`, :math:`g_n = g / \max g` (per image), the matrix has the eigenvalue
    :math:`\iota / (1 + a g_n)` on ``axis`` and :math:`\iota (1 + a g_n)` across it. The drift points along ``drift``
    with :math:`|\omega|_{M^{-1}} = \tau = 1 - \epsilon_\omega`; it vanishes where the gradient does.

    Source: Metric Convolutions, ICCV 2025, https://arxiv.org/abs/2406.05400, heuristic metrics; the paper uses
    ``anisotropy`` 100 and ``iota`` 1/10 for tangent balls, 10 and 1 for geodesic balls.

    Args:
        image: ``(B, C, H, W)`` floating point; the channels are averaged.
        axis: the axis that gets the SMALL eigenvalue, so the long side of the ball: ``"grad"`` or ``"grad_orth"``.
        anisotropy: a, at least 0.
        iota: the eigenvalue in flat regions; the ball's radius there is ``iota ** -0.5`` pixels.
        tau: in [0, 1), the drift's length in the dual norm; 0 is Riemannian.
        drift: ``"grad"``, ``"grad_orth"``, or either with a leading minus.

    Returns:
        One metric group: packed ``(B, 5, H, W)``.

    Raises:
        MetricZooError: for a wrong shape or a value outside its range.
    """
    _check(image, axis, anisotropy, iota, tau, drift)
    gx, gy = sobel_gradient(image.mean(1, keepdim=True))
    # hypot and its gradient are exact at 0 only for the value; the gradient is not needed: the image is data.
    g = torch.hypot(gx, gy)
    peak = g.amax((2, 3), keepdim=True)
    contrast = 1 + anisotropy * g / peak.clamp_min(torch.finfo(g.dtype).tiny)
    small, large = iota / contrast, iota * contrast
    along, across = (small, large) if axis == "grad" else (large, small)
    matrix = spectral_matrix(unit_direction(gx, gy, EPS), along, across)
    return RandersMetric.from_components(*matrix[:3], *_scaled_drift(matrix, gx, gy, drift, tau))


def _scaled_drift(matrix: tuple[Tensor, ...], gx: Tensor, gy: Tensor, drift: str, tau: float) -> tuple[Tensor, Tensor]:
    x, y = (-gy, gx) if drift.endswith("orth") else (gx, gy)
    m11, m12, m22, determinant = matrix
    length = torch.sqrt((m22 * x**2 - 2 * m12 * x * y + m11 * y**2).clamp_min(0) / determinant)
    factor = (-tau if drift.startswith("-") else tau) / length.where(length > 0, torch.ones_like(length))
    return factor * x, factor * y


def _check(image: Tensor, axis: str, anisotropy: float, iota: float, tau: float, drift: str) -> None:
    if image.dim() != 4 or not image.is_floating_point():
        raise MetricZooError(
            f"image has shape {tuple(image.shape)} and dtype {image.dtype}, expected floating point (B, C, H, W)"
        )
    if axis not in AXES:
        raise MetricZooError(f"unknown axis {axis!r}; known: {AXES}")
    if drift not in DRIFT_DIRECTIONS:
        raise MetricZooError(f"unknown drift {drift!r}; known: {DRIFT_DIRECTIONS}")
    if not bool(image.isfinite().all()):
        raise MetricZooError(f"image holds {int((~image.isfinite()).sum())} pixels that are not finite")
    if not (0 <= anisotropy < math.inf and 0 < iota < math.inf):
        raise MetricZooError(
            f"anisotropy={anisotropy}, iota={iota}: expected finite ones, anisotropy >= 0 and iota > 0"
        )
    if not 0 <= tau < 1:
        raise MetricZooError(f"tau={tau}: expected 0 <= tau < 1, or the metric is not positive")
