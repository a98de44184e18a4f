"""Averages over balls, against scipy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from metric_zoo import MetricZooError
from metric_zoo.geometry import RandersMetric, ball_samples, metric_from_image
from metric_zoo.ops import ball_filter


def image(channels: int = 1, seed: int = 0) -> torch.Tensor:
    draw = np.random.default_rng(seed)
    return torch.from_numpy(ndimage.gaussian_filter(draw.random((1, channels, 20, 23)), (0, 0, 1.5, 1.5)))


@pytest.mark.parametrize("ball", ["tangent", "geodesic"])
def test_the_euclidean_grid_is_a_uniform_filter(ball):
    x = image(3)
    metric = RandersMetric.identity(1, 1, 20, 23, dtype=torch.float64)
    found = ball_filter(x, metric, 3, ball=ball, sampling="grid")
    total = ndimage.uniform_filter(x.numpy(), (1, 1, 3, 3), mode="constant")
    inside = ndimage.uniform_filter(np.ones_like(x.numpy()), (1, 1, 3, 3), mode="constant")
    np.testing.assert_allclose(found.numpy(), total / inside, atol=1e-12)


@pytest.mark.parametrize("tau", [0.0, 0.5, 0.9])
def test_the_mean_is_over_the_balls_samples(tau):
    """Read by scipy, where the ball stays inside the image."""
    x = image()
    metric = metric_from_image(x, anisotropy=4, iota=1.0, tau=tau)
    found = ball_filter(x, metric, 5, radius=0.5)
    positions = 0.5 * ball_samples("polar", (5, 5)).positions(metric)[0].numpy()
    compared = 0
    for row in range(20):
        for column in range(23):
            at = positions[:, :, row, column] + (column, row)
            if at.min() < 0 or at[:, 0].max() > 22 or at[:, 1].max() > 19:
                continue  # what lies outside counts nothing, and scipy has another idea of that
            read = ndimage.map_coordinates(x[0, 0].numpy(), at.T[::-1], order=1)
            assert found[0, 0, row, column].item() == pytest.approx(read.mean(), abs=1e-12)
            compared += 1
    assert compared > 100


def test_a_constant_image_stays_what_it_is():
    """At the border, too, where part of a ball lies outside."""
    x = torch.full((1, 1, 20, 23), 0.3, dtype=torch.float64)
    metric = metric_from_image(image(), tau=0.5)
    for ball in ("tangent", "geodesic"):
        torch.testing.assert_close(ball_filter(x, metric, 7, ball=ball, radius=2), x)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kernel_size": 4}, "kernel_size=4: an even kernel"),
        ({"ball": "round"}, "unknown ball 'round'"),
        ({"image": torch.full((1, 1, 20, 23), torch.nan)}, "460 pixels that are not finite"),
        ({"metric": RandersMetric(-torch.ones(1, 5, 20, 23))}, "infeasible metric at image 0, group 0, row 0"),
    ],
    ids=["even", "ball", "NaN", "infeasible"],
)
def test_errors(options, message):
    given = {"image": image(), "metric": metric_from_image(image()), **options}
    with pytest.raises(MetricZooError, match=message):
        ball_filter(**given)


def test_a_pixel_whose_samples_all_lie_outside_stays_as_it_is():
    """Balls of 100 pixels' radius on an image of 20; the centre is not sampled."""
    image = torch.rand(1, 1, 20, 20, generator=torch.Generator().manual_seed(0))
    wide = RandersMetric(torch.tensor([1e-4, 0, 1e-4, 0, 0]).view(1, 5, 1, 1).expand(1, 5, 20, 20).contiguous())
    found = ball_filter(image, wide, 3)
    assert torch.equal(found[..., 0, 0], image[..., 0, 0]) and bool(found.isfinite().all())


@pytest.mark.parametrize("options", [{"kernel_size": 1}, {"kernel_size": -3}, {"radius": 0.0}, {"radius": torch.nan}])
def test_sizes_that_are_none(options):
    with pytest.raises(MetricZooError, match="expected 3 or more"):
        ball_filter(torch.rand(1, 1, 9, 9), RandersMetric.identity(1, 1, 9, 9), **options)
