"""The metrics that other convolutions have without knowing: whose unit ball do their samples cover?

Source: Metric Convolutions, ICCV 2025, https://arxiv.org/abs/2406.05400, the unifying theory (section 3): fixed,
dilated, shifted and deformable kernels
all sample unit balls of some metric.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from metric_zoo.errors import MetricZooError
from metric_zoo.geometry.precision import at_least_float32
from metric_zoo.geometry.randers import RandersMetric
from metric_zoo.geometry.sampling import ball_samples

_LEAST_RATIO = 1e-2
"""Of the eigenvalues of a fitted form: flatter balls than 10 : 1 are not what a few samples tell."""
_LONGEST_DRIFT = 0.99
_STEPS = 20


class ImplicitMetric(NamedTuple):
    """A Randers metric and how well it explains samples.

    Attributes:
        metric: one per pixel and group.
        residual: ``(B, G, H, W)``, root of the mean square of ``F(y_i) - s_i``: 0 where the samples lie exactly where
            the ball puts them, in units of the ball's radius.
        explained: ``(B, G, H, W)``, the share of the samples' squared distances from the ordinary grid that the
            metric's own samples account for: 1 where it puts every sample where it is, at most 0 where the grid does
            as well.
    """

    metric: RandersMetric
    residual: Tensor
    explained: Tensor


def fit_randers(positions: Tensor, kernel_size: tuple[int, int], dilation: tuple[int, int] = (1, 1)) -> ImplicitMetric:
    r"""The Randers metric whose unit ball a kernel's samples cover, by least squares.

    A cell :math:`g_i` of the kernel's grid is sampled at :math:`g_i / F(g_i / |g_i|)`, so the metric is sought that
    minimises :math:`\sum_i |g_i / F(g_i / |g_i|) - y_i|^2`, by Levenberg and Marquardt's steps, at every pixel by
    itself. They start where the equations :math:`F(y_i) = |g_i|`, which are linear in :math:`A = M - \omega \omega^T`
    and omega, are solved best; or at the Euclidean metric, where that is nearer: no fit is worse than the grid.

    Args:
        positions: ``(B, G*K, 2, H, W)``, (x, y) in pixels relative to each window's centre, K in row-major order: what
            ``layer.sample_positions(x)`` yields.
        kernel_size, dilation: of the kernel, (height, width).

    Raises:
        MetricZooError: for a kernel of fewer than 6 cells, whose samples do not determine a metric, or another shape.
    """
    table = ball_samples("grid", kernel_size, dilation)
    cells = len(table.displacement)
    if cells < 6:
        raise MetricZooError(f"a kernel of {kernel_size} has {cells} cells, too few for the five numbers of a metric")
    if positions.dim() != 5 or positions.shape[1] % cells or positions.shape[2] != 2:
        raise MetricZooError(f"positions has shape {tuple(positions.shape)}, expected (B, G*{cells}, 2, H, W)")
    y = at_least_float32(positions.detach()).unflatten(1, (-1, cells)).permute(0, 1, 4, 5, 2, 3)  # (B, G, H, W, K, 2)
    grid = table.displacement.to(y)
    scale = grid.norm(dim=1)
    form, omega = _feasible(*_solve(y, scale))
    m11, m12, m22 = form[..., 0] + omega[..., 0] ** 2, form[..., 1] + omega[..., 0] * omega[..., 1], form[..., 2]
    start = torch.stack((m11, m12, m22 + omega[..., 1] ** 2, omega[..., 0], omega[..., 1]), -1)
    metric = RandersMetric.from_components(*_refined(start, y, grid).unbind(-1))
    away = metric.norm(y.permute(0, 1, 4, 5, 2, 3)).permute(0, 1, 3, 4, 2) - scale
    ours = table.positions(metric).unflatten(1, (-1, cells)).permute(0, 1, 4, 5, 2, 3)
    moved, missed = (y - grid).square().sum((-1, -2)), (y - ours).square().sum((-1, -2))
    still = moved <= torch.finfo(y.dtype).eps
    explained = torch.where(still, torch.ones_like(moved), 1 - missed / moved.clamp_min(torch.finfo(y.dtype).eps))
    return ImplicitMetric(metric, away.square().mean(-1).sqrt(), explained)


def _solve(y: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """A as ``(..., 3)`` (a11, a12, a22) and omega ``(..., 2)``; every equation divided by its s, so that all weigh the
    same in radii."""
    outside = scale > 0
    unit = y[..., outside, :] / scale[outside, None]
    x, z = unit.unbind(-1)
    rows = torch.stack((x * x, 2 * x * z, z * z, 2 * x, 2 * z), -1)
    normal = rows.mT @ rows
    # What the samples do not tell (all in one line) is left at 0 instead of anywhere.
    lift = 1e-6 * normal.diagonal(dim1=-2, dim2=-1).mean(-1)[..., None, None] + torch.finfo(normal.dtype).tiny
    normal = normal + lift * torch.eye(5).to(normal)
    solution = torch.linalg.solve(normal, rows.sum(-2))
    return solution[..., :3], solution[..., 3:]


def _feasible(form: Tensor, omega: Tensor) -> tuple[Tensor, Tensor]:
    """The form with its eigenvalues raised to what is feasible."""
    matrix = torch.stack((form[..., 0], form[..., 1], form[..., 1], form[..., 2]), -1).unflatten(-1, (2, 2))
    values, vectors = torch.linalg.eigh(matrix)
    values = values.clamp_min(_LEAST_RATIO * values.abs().amax(-1, keepdim=True).clamp_min(1e-6))
    matrix = vectors @ (values[..., None] * vectors.mT)
    return torch.stack((matrix[..., 0, 0], matrix[..., 0, 1], matrix[..., 1, 1]), -1), omega


def _refined(start: Tensor, y: Tensor, grid: Tensor) -> Tensor:
    """The metrics ``(..., 5)`` that are nearest to samples ``y (..., K, 2)``: Levenberg and Marquardt's steps.

    A sample moves along its cell's ray only, so what counts of ``y`` is how far it reaches along that ray.
    """
    outside = grid.norm(dim=1) > 0
    length = grid[outside].norm(dim=1)
    ray = grid[outside] / length[:, None]
    reached = (y[..., outside, :] * ray).sum(-1) / length  # 1 / F(ray) of the metric that would put the sample there
    euclid = start.new_tensor([1.0, 0.0, 1.0, 0.0, 0.0]).expand_as(start)
    cost = _cost(start, ray, length, reached)
    nearer = cost < _cost(euclid, ray, length, reached)
    found = torch.where(nearer[..., None], start, euclid)
    cost, damping = _cost(found, ray, length, reached), torch.full_like(cost, 1e-2)
    for _ in range(_STEPS):
        residual, slope = _residuals(found, ray, length, reached)
        normal, gradient = slope.mT @ slope, (slope.mT @ residual[..., None])
        diagonal = normal.diagonal(dim1=-2, dim2=-1)
        lift = damping[..., None] * diagonal + 1e-9 * diagonal.mean(-1, keepdim=True) + torch.finfo(y.dtype).tiny
        moved = found - torch.linalg.solve(normal + torch.diag_embed(lift), gradient)[..., 0]
        new = _cost(moved, ray, length, reached)
        better = new < cost
        found, cost = torch.where(better[..., None], moved, found), torch.where(better, new, cost)
        damping = torch.where(better, damping / 5, damping * 5).clamp(1e-7, 1e7)
    return found


def _cost(metric: Tensor, ray: Tensor, length: Tensor, reached: Tensor) -> Tensor:
    """Sum of squares; infinite for what is no metric."""
    m11, m12, m22, _, _ = metric.unbind(-1)
    determinant = m11 * m22 - m12**2
    residual, _ = _residuals(metric, ray, length, reached)
    fields = RandersMetric.from_components(*(c.reshape(1, 1, 1, -1) for c in metric.unbind(-1)))
    length_of_drift = fields.drift_norm().reshape(determinant.shape)
    flat = determinant <= _LEAST_RATIO * ((m11 + m22) / (1 + _LEAST_RATIO)) ** 2  # of eigenvalues of that ratio
    feasible = (m11 > 0) & ~flat & (length_of_drift < _LONGEST_DRIFT)
    return torch.where(feasible, residual.square().sum(-1), torch.inf)


def _residuals(metric: Tensor, ray: Tensor, length: Tensor, reached: Tensor) -> tuple[Tensor, Tensor]:
    """Misses along the rays ``(..., K)`` and their derivatives ``(..., K, 5)`` by (m11, m12, m22, omega)."""
    x, z = ray.unbind(-1)
    m11, m12, m22, omega_x, omega_y = metric[..., None, :].unbind(-1)
    root = torch.sqrt((m11 * x * x + 2 * m12 * x * z + m22 * z * z).clamp_min(torch.finfo(metric.dtype).tiny))
    reach = 1 / (root + omega_x * x + omega_y * z)
    slope = torch.stack(
        (x * x / 2 / root, x * z / root, z * z / 2 / root, *torch.broadcast_tensors(x, z, root)[:2]), -1
    )
    return length * (reach - reached), -(length * reach**2)[..., None] * slope


def hull_ball(positions: Tensor) -> np.ndarray:
    """The smallest convex ball around one pixel's samples: the vertices of their convex hull.

    It is the unit ball of an asymmetric norm where it contains the origin in its inside; a shifted kernel's may not.

    Args:
        positions: ``(K, 2)``, (x, y) relative to the window's centre.

    Returns:
        ``(V, 2)`` float64, counterclockwise for an x axis to the right and a y axis upwards.

    Raises:
        MetricZooError: for positions of another shape or that are not finite, or samples that all lie in one line.
    """
    from scipy.spatial import ConvexHull, QhullError

    if positions.dim() != 2 or positions.shape[1] != 2:
        raise MetricZooError(f"positions have shape {tuple(positions.shape)}: expected one pixel's samples, (K, 2)")
    if not bool(positions.isfinite().all()):
        raise MetricZooError(f"positions hold {int((~positions.isfinite()).sum())} values that are not finite")
    points = positions.detach().double().cpu().numpy()
    try:
        return points[ConvexHull(points).vertices]
    except (QhullError, ValueError):
        raise MetricZooError(f"{len(points)} samples in one line have no convex ball") from None
