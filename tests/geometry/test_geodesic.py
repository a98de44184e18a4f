"""Geodesic balls against closed forms and against shortest paths of a fine graph."""

from __future__ import annotations

from math import gcd

import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import dijkstra

from metric_zoo import MetricZooError
from metric_zoo.geometry import SAMPLINGS, RandersMetric, ball_samples, geodesic_ball
from metric_zoo.geometry.geodesic import Rays, geodesic_positions

SIZE, CENTRE = 21, 10
ROWS, COLUMNS = np.mgrid[0:SIZE, 0:SIZE].astype(float)


def field(*components) -> RandersMetric:
    """Of (m11, m12, m22, omega_x, omega_y), each a number or ``(SIZE, SIZE)``."""
    planes = [np.broadcast_to(np.asarray(c, float), (SIZE, SIZE)) for c in components]
    return RandersMetric(torch.tensor(np.stack(planes))[None])


def ball(metric: RandersMetric, k: int = 11, **options) -> tuple[np.ndarray, np.ndarray]:
    """The polar samples around the centre ``(K, 2)``, and how far each should be by the metric."""
    found = geodesic_ball(metric, "polar", k, **options)[0, :, :, CENTRE, CENTRE].numpy()
    return found, np.repeat((np.arange(k) + 1) / k, k)


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_a_constant_metric_has_straight_geodesics(sampling):
    """The geodesic ball is the tangent ball, whose formula is checked elsewhere."""
    metric = field(0.3, 0.05, 0.2, 0.15, -0.1)
    straight = ball_samples(sampling, (5, 5)).positions(metric)
    torch.testing.assert_close(geodesic_ball(metric, sampling, 5), straight, rtol=0, atol=1e-12)
    torch.testing.assert_close(geodesic_ball(metric, sampling, 5, radius=2), 2 * straight, rtol=0, atol=1e-12)


@pytest.mark.parametrize("drift", [(0.0, 0.0), (0.12, -0.08)], ids=["Riemannian", "Randers"])
def test_the_hyperbolic_plane(drift):
    """M = (R / y)^2 I has distances in closed form; a constant drift w adds w . (q - p), since it is a gradient."""
    radius, y = 10.0, 30.0 + ROWS - CENTRE
    metric = field((radius / y) ** 2, 0, (radius / y) ** 2, *drift)
    found, expected = ball(metric, steps=16)
    moved = 30.0 + found[:, 1]
    hyperbolic = radius * np.arccosh(1 + (found**2).sum(1) / (2 * 30.0 * moved))
    np.testing.assert_allclose(hyperbolic + found @ np.array(drift), expected, rtol=2e-3)
    straight = ball_samples("polar", (11, 11)).positions(metric)[0, :, :, CENTRE, CENTRE].numpy()
    off = 10 * np.arccosh(1 + (straight**2).sum(1) / (60 * (30 + straight[:, 1]))) + straight @ np.array(drift)
    assert np.abs(off - expected).max() > 0.02, "the straight ball would not pass"


def test_the_hyperbolic_plane_from_the_ellipse():
    """Each geodesic is as long as the velocity with which it leaves is by the norm in the centre."""
    radius, y, drift = 10.0, 30.0 + ROWS - CENTRE, np.array((0.12, -0.08))
    metric = field((radius / y) ** 2, 0, (radius / y) ** 2, *drift)
    velocity = ball_samples("zermelo", (3, 3)).positions(metric)[0, :, :, CENTRE, CENTRE].numpy()
    found = geodesic_ball(metric, "zermelo", 3, steps=16)[0, :, :, CENTRE, CENTRE].numpy()
    hyperbolic = radius * np.arccosh(1 + (found**2).sum(1) / (60.0 * (30.0 + found[:, 1])))
    expected = radius / 30.0 * np.hypot(*velocity.T) + velocity @ drift
    np.testing.assert_allclose(hyperbolic + found @ drift, expected, rtol=2e-3)
    assert np.abs(found - velocity).max() > 0.02, "the straight ball would not pass"


def graph_distances(metric: RandersMetric, half: int, sub: int = 6, reach: int = 5) -> tuple[np.ndarray, int]:
    """Shortest paths from the centre over a graph of ``sub`` points a pixel, every one joined to all within ``reach``.

    An edge costs what the norm says on its way, the dual being scipy's quadratic B-spline. Written for this test alone.
    """
    dual, count = metric.dual().packed[0].numpy(), 2 * half * sub + 1
    place = np.arange(count) / sub - half + CENTRE
    x, y = np.meshgrid(place, place)
    index = np.arange(count * count).reshape(count, count)
    tails, heads, costs = [], [], []
    for dy in range(-reach, reach + 1):
        for dx in range(-reach, reach + 1):
            if gcd(dx, dy) != 1:
                continue
            part = (slice(max(0, -dy), count - max(0, dy)), slice(max(0, -dx), count - max(0, dx)))
            cost = np.zeros(index[part].shape)
            for t in (1 / 6, 1 / 2, 5 / 6):
                at = [y[part] + t * dy / sub, x[part] + t * dx / sub]
                read = np.stack([map_coordinates(p, at, order=2, mode="nearest", prefilter=False) for p in dual])
                m11, m12, m22, wx, wy = RandersMetric(torch.tensor(read)[None]).dual().packed[0].numpy()
                u, v = dx / sub, dy / sub
                cost += (np.sqrt(m11 * u * u + 2 * m12 * u * v + m22 * v * v) + wx * u + wy * v) / 3
            tails.append(index[part].ravel())
            heads.append((index[part] + dy * count + dx).ravel())
            costs.append(cost.ravel())
    edges = (np.concatenate(costs), (np.concatenate(tails), np.concatenate(heads)))
    graph = coo_matrix(edges, shape=(count * count, count * count)).tocsr()
    return dijkstra(graph, indices=index[count // 2, count // 2]).reshape(count, count), sub


SCALE = 0.08 * np.exp(0.12 * (COLUMNS - 10) + 0.05 * (ROWS - 10))
FIELDS = {
    "smooth": (
        *(SCALE * (1.5 + 0.5 * np.sin(ROWS / 3)), 0.3 * SCALE * np.cos(COLUMNS / 4), SCALE),
        *(0.3 * np.sqrt(SCALE) * np.sin(COLUMNS / 5), 0.2 * np.sqrt(SCALE)),
    ),
    "edge": (np.where(COLUMNS < 12, 0.06, 2.0), 0, np.where(COLUMNS < 12, 0.06, 2.0), 0, 0),
    "edge of another shape": (np.where(COLUMNS < 12, 0.06, 2.0), 0, 0.06, np.where(COLUMNS < 12, 0.1, 0), 0.1),
}


@pytest.mark.parametrize("name", FIELDS)
def test_samples_are_as_far_as_shortest_paths_say(name):
    """Within 2% of the radius, on smooth fields and across an edge where the metric changes by a factor of 33."""
    metric = field(*FIELDS[name])
    found, expected = ball(metric, steps=16)
    half = int(np.ceil(np.abs(found).max())) + 1
    assert half <= CENTRE
    distances, sub = graph_distances(metric, half)
    reached = map_coordinates(distances, [(found[:, 1] + half) * sub, (found[:, 0] + half) * sub], order=1)
    np.testing.assert_allclose(reached, expected, rtol=0, atol=0.02)
    straight = ball_samples("polar", (11, 11)).positions(metric)[0, :, :, CENTRE, CENTRE].numpy()
    assert np.abs(straight - found).max() > 0.3, "the field must bend geodesics"


def test_a_stride_leaves_pixels_between_the_metrics():
    """Every second metric of a slowly varying field: the same balls, since positions are in pixels."""
    scale = 0.1 * np.exp(0.06 * (COLUMNS - 10))
    whole = field(scale, 0, 1.5 * scale, 0, 0)
    part = RandersMetric(whole.packed[:, :, ::2, ::2].contiguous())
    apart = geodesic_ball(part, "polar", 5, spacing=(2, 2))[..., 5, 5]
    torch.testing.assert_close(apart, geodesic_ball(whole, "polar", 5)[..., CENTRE, CENTRE], rtol=5e-3, atol=5e-3)


def test_groups_and_images_have_balls_of_their_own():
    packed = torch.cat([field(*FIELDS[name]).packed for name in FIELDS])
    together = geodesic_ball(RandersMetric(packed.reshape(1, -1, SIZE, SIZE)), "onion", 3)
    for number, part in enumerate(together.unflatten(1, (3, 9)).unbind(1)):
        torch.testing.assert_close(part, geodesic_ball(RandersMetric(packed[number : number + 1]), "onion", 3))


def test_gradient_against_finite_differences():
    torch.manual_seed(0)
    metric = RandersMetric(field(*FIELDS["smooth"]).packed[:, :, 6:12, 6:12].contiguous())
    packed = (metric.packed + 0.001 * torch.randn_like(metric.packed)).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda p: geodesic_ball(RandersMetric(p), "polar", 2, steps=3), (packed,), atol=1e-5
    )


def test_tiles_do_not_show(monkeypatch):
    from metric_zoo.geometry import geodesic

    metric = field(*FIELDS["smooth"])
    whole = geodesic_ball(metric, "polar", 5)
    monkeypatch.setattr(geodesic, "_TILE", 64)
    torch.testing.assert_close(geodesic_ball(metric, "polar", 5), whole, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("components", "options", "message"),
    [
        ((1.0, 0, 1, 1.2, 0), {}, r"row 0, column 0: .*\(1, 0, 1, 1.2, 0\), \|omega\| = 1.2"),
        ((np.where(COLUMNS == 4, -1.0, 1.0), 0, 1, 0, 0), {}, "row 0, column 4"),
        ((np.where(ROWS == 3, np.nan, 1.0), 0, 1, 0, 0), {}, "row 3, column 0"),
        ((1.0, 0, 1, 0, 0), {"radius": 0}, "radius=0"),
        ((1.0, 0, 1, 0, 0), {"steps": 0}, "steps=0"),
        ((1.0, 0, 1, 0, 0), {"sampling": "polr"}, "did you mean 'polar'"),
    ],
)
def test_errors(components, options, message):
    with pytest.raises(MetricZooError, match=message):
        geodesic_ball(field(*components), **options)


def test_metrics_that_are_not_numbers_stay_where_they_are():
    """What a diverging network predicts: NaN in its layer's samples, not an error of indices; pixels out of reach get
    their balls."""
    samples = ball_samples("polar", (5, 5))
    packed = torch.tensor([1.0, 0.0, 1.0, 0.0, 0.0]).view(1, 5, 1, 1).repeat(1, 1, 16, 16)
    expected = geodesic_positions(RandersMetric(packed), samples, Rays.of(samples))
    packed[..., 3, 4] = torch.nan
    found = geodesic_positions(RandersMetric(packed.requires_grad_()), samples, Rays.of(samples))
    assert bool(found[..., 3, 4].isnan().any())
    torch.testing.assert_close(found[..., 8:, 8:], expected[..., 8:, 8:])
    found.nansum().backward()
