"""Star-shaped balls."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial import ConvexHull

from metric_zoo.geometry.star import angles_of, convex, directions_of

FINE = np.arange(720) * (2 * np.pi / 720)


def radius(numbers: np.ndarray) -> np.ndarray:
    log = np.full_like(FINE, numbers[0])
    for n, (a, b) in enumerate(zip(numbers[1::2], numbers[2::2], strict=True), 1):
        log += a * np.cos(n * FINE) + b * np.sin(n * FINE)
    return np.exp(log)


def missing_area(numbers: np.ndarray) -> float:
    """Of the ball in its convex hull, as a part of it."""
    points = radius(numbers)[:, None] * np.stack((np.cos(FINE), np.sin(FINE)), 1)
    x, y = points.T
    area = 0.5 * abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1)))
    return 1 - area / ConvexHull(points).volume


@pytest.mark.parametrize("harmonics", [1, 2, 3])
def test_convex_balls_fill_their_hull(harmonics):
    """By scipy's hull; before, these balls do not."""
    raw = 3 * torch.randn(1, 1, 2 * harmonics + 1, 6, 6, dtype=torch.float64)
    shrunk = convex(raw, angles_of((3, 3)))
    before = [missing_area(raw[0, 0, :, i, j].numpy()) for i, j in np.ndindex(6, 6)]
    after = [missing_area(shrunk[0, 0, :, i, j].numpy()) for i, j in np.ndindex(6, 6)]
    assert max(after) < 1e-3 and max(before) > 50 * max(after)


def test_balls_shrink_no_more_than_they_must():
    """Of the shrunk ones some angle holds the condition with equality: a tenth more breaks it."""
    raw = torch.randn(1, 1, 5, 8, 8, dtype=torch.float64)
    shrunk = convex(raw, angles_of((3, 3)))
    share = (shrunk[0, 0, 1] / raw[0, 0, 1]).numpy()
    assert (share < 1).any() and (share > 0).all()
    for i, j in zip(*np.nonzero(share < 0.8), strict=True):
        more = shrunk[0, 0, :, i, j].numpy().copy()
        more[1:] *= 1.1
        inverse = 1 / radius(more)
        bend = (np.roll(inverse, 1) - 2 * inverse + np.roll(inverse, -1)) / (FINE[1] - FINE[0]) ** 2
        assert (inverse + bend).min() < 0


def test_convex_balls_stay_as_they_are():
    raw = torch.tensor([0.3, 0.05, -0.1, 0.02, 0.03]).view(1, 1, 5, 1, 1)
    assert torch.equal(convex(raw, angles_of((5, 5))), raw)


def test_shrinking_is_differentiable():
    raw = torch.randn(1, 1, 7, 2, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda raw: convex(raw, angles_of((3, 3))), raw)


@pytest.mark.parametrize(
    ("kernel", "directions"), [((1, 1), 0), ((1, 5), 2), ((3, 3), 8), ((2, 2), 4), ((5, 5), 16), ((3, 5), 12)], ids=str
)
def test_directions_of_a_kernel(kernel, directions):
    assert directions_of(kernel) == directions
