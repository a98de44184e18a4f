"""Layers of geodesic balls learn at rates that send the raw channels of a metric anywhere."""

from __future__ import annotations

import torch

from metric_zoo.benchmarks.fields import learn_fields
from metric_zoo.nn import GeodesicConv2d


def test_its_balls_are_bounded():
    """At eigenvalues of almost 0 the ball is the Euclidean one four times, by the formula of a ball's radius."""
    layer = GeodesicConv2d(1, 1, 3, padding=1, eps_omega=1.0)
    with torch.no_grad():
        layer.head.bias[2:4] = -40.0
    metric = layer.metric(torch.zeros(1, 1, 6, 6))
    torch.testing.assert_close(metric.unit_ball(8).norm(dim=3), torch.full((1, 1, 8, 6, 6), 4.0))


def test_a_rate_far_too_large_leaves_numbers():
    """As the search of a rate tries them: one pixel's gradient once threw all metrics out of range."""
    torch.manual_seed(0)
    image, clean = torch.rand(1, 1, 16, 16), torch.linspace(0, 1, 16).expand(1, 1, 16, 16)
    layer = GeodesicConv2d(1, 1, 5, padding=2, bias=False, sampling="polar", scale=(0.1, 1.5), eps_omega=0.1)
    with torch.no_grad():
        layer.weight.fill_(1 / 25)
    layer.weight.requires_grad_(False)
    learn_fields(layer, image)
    optimizer = torch.optim.SGD(layer.parameters(), lr=1e4)
    losses = []
    for _ in range(20):
        loss = (layer(image) - clean).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert layer.head.field.isfinite().all()
    assert losses[-1] < losses[0]
