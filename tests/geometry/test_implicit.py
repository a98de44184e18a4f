"""Metrics of samples: found again where samples are a ball's, honest where they are not."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import least_squares

from metric_zoo import MetricZooError, nn
from metric_zoo.geometry import RandersMetric, ball_samples, grid_offsets
from metric_zoo.geometry.implicit import fit_randers, hull_ball


def random_metric(seed: int, height: int = 3, width: int = 4, groups: int = 2) -> RandersMetric:
    generator = torch.Generator().manual_seed(seed)
    l11, l21, l22, wx, wy = torch.rand(5, 2, groups, height, width, generator=generator, dtype=torch.float64)
    l11, l22 = 0.5 + l11, 0.5 + l22
    raw = torch.stack((wx - 0.5, wy - 0.5))
    m = (l11**2, l11 * l21, l21**2 + l22**2)
    metric = RandersMetric.from_components(*m, *raw)
    return RandersMetric.from_components(*m, *(0.6 * raw / metric.drift_norm().clamp_min(0.6)))


@pytest.mark.parametrize(("size", "dilation"), [((3, 3), (1, 1)), ((5, 5), (2, 1)), ((4, 3), (1, 1))], ids=str)
def test_a_metrics_own_samples_give_it_back(size, dilation):
    metric = random_metric(0)
    fit = fit_randers(ball_samples("grid", size, dilation).positions(metric), size, dilation)
    torch.testing.assert_close(fit.metric.packed, metric.packed, rtol=1e-4, atol=1e-4)
    assert fit.residual.max() < 1e-4 and fit.explained.min() > 0.9999


def test_a_dilated_kernel_is_a_euclidean_ball_of_another_size():
    """The grid stretched by 2: M = I / 4, by the closed form."""
    grid = grid_offsets((3, 3)).view(1, 9, 2, 1, 1)
    fit = fit_randers(2 * grid, (3, 3))
    expected = torch.tensor([0.25, 0, 0.25, 0, 0], dtype=torch.float64).view(1, 5, 1, 1)
    torch.testing.assert_close(fit.metric.packed, expected, rtol=1e-5, atol=1e-5)
    assert fit.explained.item() == pytest.approx(1, abs=1e-4)
    assert fit_randers(grid, (3, 3)).explained.item() == 1, "the ordinary grid is the Euclidean ball"


def test_a_shift_is_a_drift():
    """The fit is the least-squares one: scipy, on the samples' distances, finds no better."""
    shifted = grid_offsets((5, 5)) + torch.tensor([0.6, -0.3], dtype=torch.float64)
    fit = fit_randers(shifted.view(1, 25, 2, 1, 1), (5, 5))
    scale = grid_offsets((5, 5)).norm(dim=1).numpy()
    y, s = shifted.numpy()[scale > 0], scale[scale > 0]

    cells = grid_offsets((5, 5)).numpy()[scale > 0]
    x, z = (cells / s[:, None]).T

    def residuals(p):
        reach = 1 / (np.sqrt(p[0] * x**2 + 2 * p[1] * x * z + p[2] * z**2) + p[3] * x + p[4] * z)
        return (cells * reach[:, None] - y).ravel()

    found = least_squares(residuals, [1, 0, 1, 0, 0], xtol=1e-14, ftol=1e-14)
    np.testing.assert_allclose(fit.metric.packed[0, :, 0, 0], found.x, rtol=1e-5, atol=1e-6)
    centre = 0.6**2 + 0.3**2  # which no ball moves
    missed, moved = 2 * found.cost + centre, ((y - cells) ** 2).sum() + centre
    assert fit.explained.item() == pytest.approx(1 - missed / moved, abs=1e-6)
    omega = fit.metric.drift[0, 0, :, 0, 0].numpy()
    assert omega[0] < 0 < omega[1], "the ball reaches further where the drift does not point"
    assert fit.metric.is_feasible().all() and 0.3 < fit.explained.item() < 1


def test_samples_that_are_no_ball_are_told():
    """Offsets without order: feasible, but hardly explained."""
    torch.manual_seed(0)
    positions = grid_offsets((3, 3)).view(1, 9, 2, 1, 1) + 0.7 * torch.randn(1, 9, 2, 20, 20, dtype=torch.float64)
    fit = fit_randers(positions, (3, 3))
    assert fit.metric.is_feasible().all() and fit.residual.median() > 0.2 and fit.explained.median() < 0.6
    assert fit.explained.min() >= -1e-9, "the grid itself is a ball: no fit is worse"


def test_every_layers_positions_can_be_fitted():
    """In float32, and in a layer's own shapes; a fresh layer is the Euclidean ball."""
    x = torch.randn(2, 8, 9, 9)
    for layer in (nn.DeformConv2d, nn.ShiftedConv2d, nn.MetricConv2d, nn.GeodesicConv2d):
        fit = fit_randers(layer(8, 8, 3, padding=1).sample_positions(x), (3, 3))
        identity = RandersMetric.identity(2, 1, 9, 9).packed
        torch.testing.assert_close(fit.metric.packed, identity, rtol=1e-3, atol=1e-3)


def test_hull_is_the_outer_samples():
    """Of the grid its corners; gauge by hand."""
    hull = hull_ball(grid_offsets((5, 5)))
    assert {tuple(v) for v in hull.tolist()} == {(-2, -2), (2, -2), (2, 2), (-2, 2)}
    area = 0.5 * np.sum(hull[:, 0] * np.roll(hull[:, 1], -1) - np.roll(hull[:, 0], -1) * hull[:, 1])
    assert area == 16, "counterclockwise"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: fit_randers(torch.zeros(1, 4, 2, 3, 3), (2, 2)), "has 4 cells, too few"),
        (lambda: fit_randers(torch.zeros(1, 8, 2, 3, 3), (3, 3)), r"expected \(B, G\*9, 2, H, W\)"),
        (lambda: hull_ball(torch.tensor([[0.0, 0], [1, 1], [2, 2]])), "3 samples in one line"),
    ],
)
def test_errors(call, message):
    with pytest.raises(MetricZooError, match=message):
        call()


@pytest.mark.parametrize(
    "positions, message",
    [
        (torch.zeros(1, 9, 2, 8, 8), r"shape \(1, 9, 2, 8, 8\)"),
        (torch.zeros(9, 3), r"shape \(9, 3\)"),
        (torch.full((9, 2), torch.nan), "18 values that are not finite"),
    ],
    ids=["field", "three-numbers", "nan"],
)
def test_hull_of_something_else(positions, message):
    with pytest.raises(MetricZooError, match=message):
        hull_ball(positions)
