"""Randers metrics against closed forms and numerical suprema."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from metric_zoo import MetricZooError
from metric_zoo.geometry import RandersMetric


def random_metric(batch=2, groups=3, size=4) -> RandersMetric:
    """Feasible by construction: M = A A^T + I, drift at 0.6 of the limit."""
    a = torch.randn(batch, groups, size, size, 2, 2, dtype=torch.float64)
    m = a @ a.mT + torch.eye(2, dtype=torch.float64)
    direction = torch.randn(batch, groups, size, size, 2, 1, dtype=torch.float64)
    length = (direction.mT @ torch.linalg.inv(m) @ direction).sqrt()
    omega = (0.6 * direction / length).squeeze(-1)
    parts = m[..., 0, 0], m[..., 0, 1], m[..., 1, 1], omega[..., 0], omega[..., 1]
    return RandersMetric.from_components(*parts)


def test_norm_is_the_formula_in_numpy():
    metric, u = random_metric(), torch.randn(5, 2, dtype=torch.float64)
    m = metric.matrix.permute(0, 1, 4, 5, 2, 3).numpy()
    omega = metric.drift.permute(0, 1, 3, 4, 2).numpy()
    expected = np.stack([np.sqrt(np.einsum("i,bghwij,j->bghw", v, m, v)) + omega @ v for v in u.numpy()], axis=2)
    np.testing.assert_allclose(metric.norm(u).numpy(), expected, rtol=1e-12)


def test_norm_of_a_field_equals_norm_of_the_same_vectors():
    metric, u = random_metric(), torch.randn(5, 2, dtype=torch.float64)
    field = u.view(1, 1, 5, 2, 1, 1).expand(2, 3, 5, 2, 4, 4)
    torch.testing.assert_close(metric.norm(field), metric.norm(u))


def test_unit_ball_lies_at_norm_one_in_the_stated_directions():
    metric = random_metric()
    ball = metric.unit_ball(16)
    torch.testing.assert_close(metric.norm(ball), torch.ones(2, 3, 16, 4, 4, dtype=torch.float64))
    angle = torch.atan2(ball[:, :, 3, 1], ball[:, :, 3, 0])
    torch.testing.assert_close(angle, torch.full_like(angle, 2 * math.pi * 3 / 16))


def test_dual_is_the_supremum_over_the_unit_ball():
    metric, v = random_metric(), torch.randn(4, 2, dtype=torch.float64)
    products = torch.einsum("bgnchw,kc->bgknhw", metric.unit_ball(20_000), v)
    torch.testing.assert_close(metric.dual().norm(v), products.amax(3), rtol=1e-6, atol=0)


def test_dual_of_the_dual_is_the_metric():
    metric = random_metric()
    torch.testing.assert_close(metric.dual().dual().packed, metric.packed)


def test_drift_norm_and_feasibility():
    metric = random_metric()
    torch.testing.assert_close(metric.drift_norm(), torch.full((2, 3, 4, 4), 0.6, dtype=torch.float64))
    assert metric.is_feasible().all()


EPS = torch.finfo(torch.float32).eps


@pytest.mark.parametrize(
    "packed",
    [(1, 0, 1, 1.0, 0), (1, 0, 1, 0.8, 0.7), (-1, 0, 1, 0, 0), (1, 2, 1, 0, 0), (1, 0, 1, math.nan, 0)],
    ids=["drift-on-the-limit", "drift-beyond", "negative", "indefinite", "nan"],
)
def test_infeasible(packed):
    assert not RandersMetric(torch.tensor(packed, dtype=torch.float64).view(1, 5, 1, 1)).is_feasible().any()


def test_identity_is_euclidean():
    metric = RandersMetric.identity(1, 2, 3, 3)
    assert (metric.norm(torch.tensor([[3.0, 4.0]])) == 5).all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RandersMetric(torch.zeros(1, 6, 2, 2)), r"\(1, 6, 2, 2\).*5\*G"),
        (lambda: RandersMetric(torch.zeros(1, 5, 2, 2, dtype=torch.int64)), "int64"),
        (lambda: RandersMetric.identity(1, 1, 2, 2).norm(torch.zeros(3)), r"\(3,\)"),
        (lambda: RandersMetric.identity(1, 1, 2, 2).unit_ball(0), "n is 0"),
    ],
    ids=["channels", "dtype", "u", "n"],
)
def test_errors_name_the_value(make, message):
    with pytest.raises(MetricZooError, match=message):
        make()


def test_projected_is_the_nearest_feasible_metric():
    """Oracles: scipy's minimiser over all positive definite matrices, by a parametrization of its own."""
    from scipy.optimize import minimize

    m = np.array([[1.0, 2.0], [2.0, 0.5]])  # one eigenvalue is negative
    least = 1e-3
    metric = RandersMetric(torch.tensor([1.0, 2.0, 0.5, 0.0, 0.0], dtype=torch.float64).view(1, 5, 1, 1))

    def matrix(p):
        root = np.array([[p[0], 0], [p[1], p[2]]])
        return root @ root.T + least * np.eye(2)

    best = minimize(lambda p: ((matrix(p) - m) ** 2).sum(), [1.0, 1.0, 1.0], tol=1e-14)
    found = metric.projected(least).matrix[0, 0, ..., 0, 0].numpy()
    np.testing.assert_allclose(found, matrix(best.x), atol=1e-5)


def test_projected_shortens_the_drift_alone():
    packed = torch.tensor([[2.0, 0.3, 1.0, 3.0, -1.0], [2.0, 0.3, 1.0, 0.1, 0.2]], dtype=torch.float64).T
    metric = RandersMetric(packed.reshape(1, 5, 1, 2))
    found = metric.projected(0.01)
    inverse = np.linalg.inv([[2.0, 0.3], [0.3, 1.0]])
    drift = found.drift[0, 0, :, 0, 0].numpy()
    assert np.sqrt(drift @ inverse @ drift) == pytest.approx(0.99)
    assert drift[0] / drift[1] == pytest.approx(-3.0)
    assert torch.equal(found.packed[..., 1], metric.packed[..., 1])  # feasible already: bit by bit
    found.check_feasible()
    with pytest.raises(MetricZooError, match=r"column 0: .*\(2, 0.3, 1, 3, -1\)"):
        metric.check_feasible()


@pytest.mark.parametrize(
    "components",
    [(2.0, 0.3, 1.0, 0.1, 0.2), (1.0, 0.0, 1.0, 0.0, 0.0), (0.02, 0.01, 1.0, 0.1, 0.0), (0.02, 0.0, 0.02, 0.0, 0.0)],
    ids=["feasible", "euclidean", "one-eigenvalue-below", "both-below"],
)
def test_gradient_of_the_projection_against_finite_differences(components):
    """Also where eigenvalues agree or there is no drift."""
    packed = torch.tensor(components, dtype=torch.float64).view(1, 5, 1, 1).requires_grad_()
    assert torch.autograd.gradcheck(lambda p: RandersMetric(p).projected(0.1).packed, packed)


@pytest.mark.parametrize(
    "components, expected",
    [
        ((1e6, 0, -1, 0, 0), (1e6, 0, 4e9 * EPS, 0, 0)),
        ((1e6, 0, 1e-9, 3, 0), (1e6, 0, 4e9 * EPS, 3, 0)),
        ((3e7, 0, 1, 0.5, 0.5), None),
        ((1e15, 0, 1, 0, 0), None),
        ((-5, 0, -3, 0, 0), (0.001, 0, 0.001, 0, 0)),
        ((0, 0, 0, 0, 0), (0.001, 0, 0.001, 0, 0)),
    ],
    ids=["negative", "tiny", "feasible", "extreme", "both-negative", "zero"],
)
def test_projected_where_one_eigenvalue_is_much_larger(components, expected):
    """In closed form; what is raised keeps digits (a share of 4 eps / least), what is feasible every bit."""
    packed = torch.tensor(components).float().view(1, 5, 1, 1)
    found = RandersMetric(packed).projected()
    found.check_feasible()
    if expected is None:
        assert torch.equal(found.packed, packed)
    else:
        np.testing.assert_allclose(found.packed.flatten(), expected, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("scale", [1.0, 1e2, 1e4, 1e6])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_projected_is_feasible_whatever_it_was(scale, dtype):
    """By numpy's eigenvalues and solver, in double precision."""
    random = torch.randn(1, 5, 300, 300, generator=torch.Generator().manual_seed(0)).to(dtype)
    found = RandersMetric(random * scale).projected()
    found.check_feasible()
    matrix = found.matrix[0, 0].movedim((0, 1), (2, 3)).double().numpy()
    drift = found.drift[0, 0].movedim(0, 2).double().numpy()
    assert np.linalg.eigvalsh(matrix).min() > 0
    assert (drift * np.linalg.solve(matrix, drift[..., None])[..., 0]).sum(-1).max() < 1


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_projected_in_half_precision(dtype):
    packed = torch.tensor([[600.0, 0, 1, 0, 0], [300.0, 0, 1, 0, 0], [2, 0, -1, 0, 0]], dtype=dtype).T.reshape(
        1, 5, 1, 3
    )
    found = RandersMetric(packed).projected()
    assert found.packed.dtype == dtype and torch.equal(found.packed[..., :2], packed[..., :2])
    found.check_feasible()


def test_projected_refuses():
    with pytest.raises(MetricZooError, match="1 numbers of the metric are not finite"):
        RandersMetric(torch.tensor([1.0, 0, 1, torch.nan, 0]).view(1, 5, 1, 1)).projected()
    with pytest.raises(MetricZooError, match="least=0"):
        RandersMetric.identity(1, 1, 1, 1).projected(0)
