"""Shape, direction, size and asymmetry of balls."""

from __future__ import annotations

import numpy as np
import torch

from metric_zoo.geometry import RandersMetric
from metric_zoo.geometry.fields import ball_fields


def random_metrics(count: int) -> tuple[RandersMetric, np.ndarray, np.ndarray]:
    """Packed, and M and omega as numpy sees them; the drifts' dual lengths are 0 to 0.8."""
    draw = np.random.default_rng(0)
    roots = draw.standard_normal((count, 2, 2))
    matrices = roots @ roots.transpose(0, 2, 1) + 0.3 * np.eye(2)
    omegas = draw.standard_normal((count, 2))
    lengths = np.sqrt(np.einsum("ni,nij,nj->n", omegas, np.linalg.inv(matrices), omegas))
    omegas *= (draw.uniform(0, 0.8, count) / lengths)[:, None]
    rows = np.stack((matrices[:, 0, 0], matrices[:, 0, 1], matrices[:, 1, 1], *omegas.T))
    return RandersMetric(torch.from_numpy(rows)[None, :, None]), matrices, omegas


def test_against_eigenvectors_and_a_polygon_s_area():
    metric, matrices, omegas = random_metrics(50)
    fields = ball_fields(metric)
    values, vectors = np.linalg.eigh(matrices)
    np.testing.assert_allclose(fields.anisotropy.flatten(), np.sqrt(values[:, 1] / values[:, 0]))
    long = vectors[:, :, 0]  # of the small eigenvalue
    angles = fields.orientation.flatten().numpy()
    np.testing.assert_allclose(np.abs(long[:, 0] * np.cos(angles) + long[:, 1] * np.sin(angles)), 1, atol=1e-9)
    x, y = metric.unit_ball(20_000)[0, 0, :, :, 0].permute(1, 0, 2).numpy()
    shoelace = 0.5 * np.abs((x * np.roll(y, -1, 0) - np.roll(x, -1, 0) * y).sum(0))
    np.testing.assert_allclose(fields.area.flatten(), shoelace / np.pi, rtol=1e-5)
    lengths = np.sqrt(np.einsum("ni,nij,nj->n", omegas, np.linalg.inv(matrices), omegas))
    np.testing.assert_allclose(fields.drift.flatten(), lengths)


def test_axes():
    """Long to the right, down, and along the diagonal that goes down to the right."""
    rows = torch.tensor([[0.25, 0, 1, 0, 0], [1, 0, 0.25, 0, 0], [1, -0.5, 1, 0, 0], [1, 0, 1, 0, 0]]).double()
    fields = ball_fields(RandersMetric(rows.T[None, :, None]))
    np.testing.assert_allclose(fields.orientation[0, 0, 0, :3].abs(), [0, np.pi / 2, np.pi / 4], atol=1e-12)
    assert fields.orientation[0, 0, 0, 2] > 0
    np.testing.assert_allclose(fields.anisotropy.flatten(), [2, 2, np.sqrt(3), 1])
    assert fields.area[0, 0, 0, 3] == 1
