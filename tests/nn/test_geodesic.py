"""Layers of geodesic balls learn at rates that send the raw channels of a metric anywhere."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from metric_zoo.benchmarks.per_pixel import learn_fields
from metric_zoo.errors import MetricZooError
from metric_zoo.geometry import PARAMETRIZATIONS, RandersMetric
from metric_zoo.nn import GeodesicConv2d, MetricConv2d


def test_its_balls_are_bounded():
    """At eigenvalues of almost 0 the ball is the Euclidean one four times, by the formula of a ball's radius."""
    layer = GeodesicConv2d(1, 1, 3, padding=1, eps_omega=1.0)
    with torch.no_grad():
        layer.sampler.bias[2:4] = -40.0
    metric = layer.metric(torch.zeros(1, 1, 6, 6))
    torch.testing.assert_close(metric.unit_ball(8).norm(dim=3), torch.full((1, 1, 8, 6, 6), 4.0))


@pytest.mark.parametrize("parametrization, rate", [("eigen_scaled", 1e4), *((name, 1e6) for name in PARAMETRIZATIONS)])
def test_a_rate_far_too_large_leaves_numbers(parametrization, rate):
    """As the search of a rate tries them: one pixel's gradient once threw all metrics out of range."""
    torch.manual_seed(0)
    image, clean = torch.rand(1, 1, 16, 16), torch.linspace(0, 1, 16).expand(1, 1, 16, 16)
    layer = GeodesicConv2d(
        1, 1, 5, padding=2, bias=False, sampling="polar", eps_omega=0.1, parametrization=parametrization
    )
    with torch.no_grad():
        layer.weight.fill_(1 / 25)
    layer.weight.requires_grad_(False)
    learn_fields(layer, image)
    optimizer = torch.optim.SGD(layer.parameters(), lr=rate)
    losses = []
    for _ in range(20):
        loss = (layer(image) - clean).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert layer.sampler.field.isfinite().all() and all(math.isfinite(loss) for loss in losses)


@pytest.mark.parametrize(
    "options, message", [({"eps_omega": 0.01}, "eps_omega=0.01"), ({"scale": (0.001, 0.02)}, "scale")]
)
def test_what_the_bound_would_override_is_refused(options, message):
    with pytest.raises(MetricZooError, match=message):
        GeodesicConv2d(1, 1, 3, **options)


def test_long_rays_take_more_steps(monkeypatch):
    """Under a kernel of 11, in the hyperbolic plane M = (R / y)^2 I, whose distances have a closed form."""
    radius, middle, rows = 12.0, 30.0, 33
    y = (middle + torch.arange(rows).double() - rows // 2)[:, None].expand(rows, rows)
    matrix, zero = (radius / y) ** 2, torch.zeros(rows, rows).double()
    metric = RandersMetric(torch.stack((matrix, zero, matrix, zero, zero))[None])
    monkeypatch.setattr(MetricConv2d, "_metric", lambda *_: metric)
    layer = GeodesicConv2d(1, 1, 11, padding=5).double()
    found = layer.sample_positions(zero[None, None])[0, :, :, rows // 2, rows // 2].detach().numpy()
    far = radius * np.arccosh(1 + (found**2).sum(1) / (2 * middle * (middle + found[:, 1])))
    across, down = np.meshgrid(np.arange(-5, 6), np.arange(-5, 6))
    np.testing.assert_allclose(far, np.hypot(across, down).ravel(), atol=2.5e-3)  # 8 steps miss by 4.4e-3
