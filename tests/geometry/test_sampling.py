"""Sampling tables against the written specification, computed with plain Python."""

from __future__ import annotations

import math

import pytest
import torch

from metric_zoo import MetricZooError
from metric_zoo.geometry import RandersMetric, ball_samples, grid_offsets


def metric() -> RandersMetric:
    """M = diag(4, 1), omega = (0.5, 0): F(u) = sqrt(4 x^2 + y^2) + x / 2."""
    return RandersMetric(torch.tensor((4.0, 0.0, 1.0, 0.5, 0.0), dtype=torch.float64).view(1, 5, 1, 1))


def norm(x: float, y: float) -> float:
    return math.sqrt(4 * x * x + y * y) + 0.5 * x


def ray(radius: float, angle: float) -> tuple[float, float]:
    x, y = math.cos(angle), math.sin(angle)
    return tuple(radius * c / (norm(x, y) + 1e-6) for c in (x, y))


def polar(k: int) -> list[tuple[float, float]]:
    return [ray((m + 1) / k, 2 * math.pi * j / k) for m in range(k) for j in range(k)]


def onion(k: int) -> list[tuple[float, float]]:
    rings = (k - 1) // 2
    samples = [(0.0, 0.0)]
    for q in range(1, rings + 1):
        samples += [ray(q / rings, 2 * math.pi * j / (8 * q)) for j in range(8 * q)]
    return samples


def grid(kh: int, kw: int, dh: int, dw: int) -> list[tuple[float, float]]:
    samples = []
    for row in range(kh):
        for column in range(kw):
            x, y = dw * (column - (kw - 1) / 2), dh * (row - (kh - 1) / 2)
            length = math.hypot(x, y)
            samples.append((x * length / norm(x, y), y * length / norm(x, y)) if length else (0.0, 0.0))
    return samples


@pytest.mark.parametrize(
    ("sampling", "kernel", "dilation", "expected"),
    [
        ("polar", (3, 3), (1, 1), polar(3)),
        ("polar", (4, 4), (2, 2), polar(4)),
        ("onion", (3, 3), (1, 1), onion(3)),
        ("onion", (5, 5), (2, 2), onion(5)),
        ("onion", (1, 1), (1, 1), onion(1)),
        ("grid", (3, 3), (1, 1), grid(3, 3, 1, 1)),
        ("grid", (4, 2), (1, 3), grid(4, 2, 1, 3)),
        ("grid", (1, 1), (1, 1), grid(1, 1, 1, 1)),
    ],
)
def test_positions(sampling, kernel, dilation, expected):
    positions = ball_samples(sampling, kernel, dilation).positions(metric()).view(-1, 2)
    torch.testing.assert_close(positions, torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kernel", [(3, 3), (7, 7), (4, 6), (1, 5)])
def test_identity_metric_samples_exactly_the_grid(kernel, dtype):
    positions = ball_samples("grid", kernel, (2, 1)).positions(RandersMetric.identity(1, 1, 1, 1, dtype=dtype))
    assert torch.equal(positions.view(-1, 2), grid_offsets(kernel, (2, 1)).to(dtype))


@pytest.mark.parametrize(
    ("sampling", "kernel", "message"),
    [
        ("polr", (3, 3), "unknown sampling 'polr'; did you mean 'polar'"),
        ("polar", (3, 5), r"square kernel, got \(3, 5\)"),
        ("onion", (4, 4), "odd kernel, got 4"),
    ],
)
def test_errors(sampling, kernel, message):
    with pytest.raises(MetricZooError, match=message):
        ball_samples(sampling, kernel)
