"""Randers balls as translated ellipses."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg
import torch

from metric_zoo.geometry import RandersMetric, ball_samples, grid_offsets, metric_from_raw
from metric_zoo.geometry.zermelo import ellipse


def test_the_unit_circle_lands_on_the_unit_ball():
    """F = 1 there, by the norm's own definition, whatever the metric."""
    metric = metric_from_raw(3 * torch.randn(2, 14, 6, 5, dtype=torch.float64), eps_omega=0.05)
    angle = torch.arange(24, dtype=torch.float64) * (2 * np.pi / 24)
    xx, xy, yy, wind_x, wind_y = ellipse(metric.packed).unflatten(1, (2, 1, 5)).unbind(3)
    c, s = (wave.view(-1, 1, 1) for wave in (angle.cos(), angle.sin()))
    points = torch.stack((c + xx * c + xy * s + wind_x, s + xy * c + yy * s + wind_y), 3)
    torch.testing.assert_close(metric.norm(points), torch.ones(2, 2, 24, 6, 5, dtype=torch.float64), rtol=1e-9, atol=0)


def test_the_map_is_the_inverse_symmetric_root():
    """By scipy's matrix square root."""
    metric = metric_from_raw(torch.randn(1, 7, 3, 3, dtype=torch.float64))
    found = ellipse(metric.packed)[0].numpy()
    for row, column in np.ndindex(3, 3):
        matrix, omega = metric.matrix[0, 0, ..., row, column].numpy(), metric.drift[0, 0, :, row, column].numpy()
        rest = 1 - omega @ np.linalg.solve(matrix, omega)
        root = np.linalg.inv(scipy.linalg.sqrtm(rest * (matrix - np.outer(omega, omega))).real)
        xx, xy, yy, *wind = found[:, row, column]
        np.testing.assert_allclose([[1 + xx, xy], [xy, 1 + yy]], root, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(wind, -np.linalg.solve(matrix, omega) / rest, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_euclidean_ball_is_the_grid_exactly(dtype):
    positions = ball_samples("zermelo", (3, 5), (2, 1)).positions(RandersMetric.identity(1, 1, 2, 2, dtype=dtype))
    assert torch.equal(positions, grid_offsets((3, 5), (2, 1)).to(dtype)[None, ..., None, None].expand(1, -1, -1, 2, 2))


def test_a_straight_row_stays_straight_and_the_centre_moves():
    positions = ball_samples("zermelo", (3, 3)).positions(metric_from_raw(torch.randn(1, 7, 4, 4)))[0]
    torch.testing.assert_close(positions[0] + positions[2], 2 * positions[1], rtol=1e-5, atol=1e-5)
    assert positions[4].norm(dim=0).min() > 0


@pytest.mark.parametrize("scale", [1e-30, 1e-12, 1e12], ids=str)
def test_extreme_balls_stay_finite(scale):
    """As their gradients do."""
    packed = torch.tensor([scale, 0.0, scale, 0.0, 0.0]).view(1, 5, 1, 1).requires_grad_()
    numbers = ellipse(packed)
    numbers.sum().backward()
    assert numbers.isfinite().all() and packed.grad.isfinite().all()


@pytest.mark.parametrize("drift", ["sigmoid", "clip_detach"])
@pytest.mark.parametrize("parametrization", ["eigen_scaled", "eigen_scaled_ratio"])
@pytest.mark.parametrize("scale", [1.0, 10.0, 1e4], ids=str)
def test_whatever_a_head_predicts_the_map_is_finite(scale, parametrization, drift):
    """In float32, in which the determinant of a thin ball is rounding; with a drift that may come as near 1 as it can.
    As the gradients are."""
    raw = (scale * torch.randn(4, 7, 32, 32)).requires_grad_()
    numbers = ellipse(metric_from_raw(raw, parametrization, drift=drift, eps_omega=0.0).packed)
    numbers.sum().backward()
    assert numbers.isfinite().all() and raw.grad.isfinite().all()


def test_a_drift_beyond_the_ball_gives_numbers():
    packed = torch.tensor([1.0, 0.0, 1.0, 3.0, 0.0]).view(1, 5, 1, 1)
    assert ellipse(packed).isfinite().all()


def test_units_do_not_matter():
    """M / c^2 and omega / c: the ball of c times the size, by the definition of the norm."""
    packed = metric_from_raw(torch.randn(1, 7, 4, 4, dtype=torch.float64)).packed
    lengths = torch.tensor([0.25, 0.25, 0.25, 0.5, 0.5], dtype=torch.float64).view(5, 1, 1)
    identity = torch.tensor([1.0, 0.0, 1.0, 0.0, 0.0], dtype=torch.float64).view(5, 1, 1)
    torch.testing.assert_close(
        ellipse(packed * lengths) + identity, 2 * (ellipse(packed) + identity), rtol=1e-12, atol=0
    )
