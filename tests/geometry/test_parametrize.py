"""Parametrizations against numpy's linear algebra; the drift against its bound."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from metric_zoo import MetricZooError
from metric_zoo.geometry import (
    DRIFTS,
    PARAMETRIZATIONS,
    MatrixOptions,
    ball_samples,
    identity_raw,
    metric_from_raw,
)


def sigmoid(v):
    return 1 / (1 + np.exp(-v))


def expected_matrix(name: str, p: np.ndarray, eps_L: float = 0.01, scale=(0.1, 1.5), eps: float = 1e-6) -> np.ndarray:
    """Section 3 of the specification, with matrices instead of components."""
    if name == "cholesky":
        lower = np.array([[abs(p[0]) + eps_L, 0], [p[1], abs(p[2]) + eps_L]])
        return lower @ lower.T
    if name == "ldlt":
        lower = np.array([[1, 0], [p[0], 1]])
        return lower @ np.diag(np.abs(p[1:3]) + eps_L) @ lower.T
    e = (p[:2] + eps) / (np.linalg.norm(p[:2]) + eps)
    if name == "eigen":
        values = np.abs(p[2:4]) + eps_L
    else:
        factor = sum(scale) / 2 + 2 * (sigmoid(p[4]) - 0.5) * (scale[1] - scale[0]) / 2
        second = 2 * sigmoid(p[3]) if name == "eigen_scaled" else 1 / (2 * sigmoid(p[3]) + eps)
        values = factor * np.array([2 * sigmoid(p[2]), second])
    frame = np.stack([e, [-e[1], e[0]]], axis=1)
    return frame @ np.diag(values) @ frame.T


@pytest.mark.parametrize("name", PARAMETRIZATIONS)
def test_matrix(name):
    channels = PARAMETRIZATIONS[name].channels
    raw = torch.randn(20, channels, 1, 1, dtype=torch.float64)
    matrices = metric_from_raw(raw, name, options=MatrixOptions(scale=(0.1, 1.5))).matrix.view(20, 2, 2).numpy()
    expected = np.stack([expected_matrix(name, p) for p in raw.view(20, -1).numpy()])
    np.testing.assert_allclose(matrices, expected, rtol=1e-12, atol=1e-12)
    assert (np.linalg.eigvalsh(matrices) > 0).all()


@pytest.mark.parametrize("drift", DRIFTS)
@pytest.mark.parametrize("eps_omega", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_drift_stays_feasible(drift, eps_omega):
    raw = torch.randn(500, 7, 1, 1, dtype=torch.float64) * 3
    raw[:, 5:] *= 10
    metric = metric_from_raw(raw, "eigen_scaled", drift, eps_omega, MatrixOptions(eps=0.0))
    inverse = np.linalg.inv(metric.matrix.view(-1, 2, 2).numpy())
    omega = metric.drift.view(-1, 2).numpy()
    length = np.sqrt(np.einsum("ni,nij,nj->n", omega, inverse, omega))
    assert length.max() <= (1 - eps_omega) * (1 + 1e-9)
    if eps_omega == 1:
        assert not omega.any()
    elif drift == "clip_detach":
        assert length.max() > 0.99 * (1 - eps_omega)


@pytest.mark.parametrize("drift", DRIFTS)
def test_detached_rules_pass_no_gradient_through_the_factor(drift):
    omega = torch.tensor((0.3, 0.4), dtype=torch.float64, requires_grad=True)
    raw = torch.cat((torch.zeros(5, dtype=torch.float64), omega)).view(1, 7, 1, 1)
    metric = metric_from_raw(raw, "eigen_scaled", drift, eps_omega=0.1)
    metric.drift[0, 0, 0].sum().backward()
    factor = (metric.drift.detach().flatten() / omega.detach())[0]
    if drift == "sigmoid":
        assert abs(omega.grad[0] - factor) > 1e-3 and abs(omega.grad[1]) > 1e-3
    else:
        torch.testing.assert_close(omega.grad, torch.stack((factor, factor * 0)))


@pytest.mark.parametrize("name", PARAMETRIZATIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_identity_raw_is_exactly_euclidean(name, dtype):
    options = MatrixOptions(scale=(0.1, 1.9), eps=0.0)
    raw = torch.tensor(identity_raw(name, options), dtype=dtype).view(1, -1, 1, 1)
    packed = metric_from_raw(raw, name, options=options).packed.flatten()
    assert packed.tolist() == [1, 0, 1, 0, 0]


def test_identity_raw_off_centre_and_impossible():
    raw = torch.tensor(identity_raw("eigen_scaled", MatrixOptions(scale=(0.1, 1.5), eps=0.0)), dtype=torch.float64)
    metric = metric_from_raw(raw.view(1, 7, 1, 1), options=MatrixOptions(scale=(0.1, 1.5), eps=0.0))
    torch.testing.assert_close(metric.packed.flatten(), torch.tensor((1.0, 0, 1, 0, 0), dtype=torch.float64))
    with pytest.raises(MetricZooError, match="does not contain 1"):
        identity_raw("eigen_scaled", MatrixOptions(scale=(0.1, 0.9)))


@pytest.mark.parametrize("name", ["eigen", "eigen_scaled", "eigen_scaled_ratio"])
@pytest.mark.parametrize("eps", [0.0, 1e-6])
def test_direction_at_zero_is_defined_with_a_finite_gradient(name, eps):
    raw = torch.zeros(1, PARAMETRIZATIONS[name].channels, 1, 1, dtype=torch.float64)
    raw[0, 2] = 1.0  # unequal eigenvalues, so that the direction matters
    raw.requires_grad_()
    metric = metric_from_raw(raw, name, options=MatrixOptions(eps=eps))
    eigenvalues = torch.linalg.eigvalsh(metric.matrix.view(2, 2))
    small = raw.detach().clone()
    small[0, 0] = 1.0
    same = torch.linalg.eigvalsh(metric_from_raw(small, name, options=MatrixOptions(eps=eps)).matrix.view(2, 2))
    torch.testing.assert_close(eigenvalues, same, rtol=1e-5, atol=0)
    metric.packed.sum().backward()
    assert raw.grad.isfinite().all()
    assert raw.grad[0, 1].abs() > 0.1, "the direction must be able to leave zero"


def test_zero_head_of_the_default_is_exactly_euclidean():
    for dtype in (torch.float32, torch.float64):
        metric = metric_from_raw(torch.zeros(1, 7, 1, 1, dtype=dtype), options=MatrixOptions(eps=0.0))
        assert metric.packed.flatten().tolist() == [1, 0, 1, 0, 0]


@pytest.mark.parametrize("name", PARAMETRIZATIONS)
def test_gradients_against_finite_differences(name):
    raw = torch.randn(2, PARAMETRIZATIONS[name].channels * 2, 2, 1, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda r: metric_from_raw(r, name, "sigmoid").packed, (raw,))


def test_groups_do_not_mix():
    raw = torch.randn(1, 14, 2, 2, dtype=torch.float64)
    both = metric_from_raw(raw).packed
    torch.testing.assert_close(both[:, :5], metric_from_raw(raw[:, :7]).packed)
    torch.testing.assert_close(both[:, 5:], metric_from_raw(raw[:, 7:]).packed)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("eigen_scald",), "unknown parametrization 'eigen_scald'; did you mean 'eigen_scaled'"),
        (("eigen_scaled", "clip"), "unknown drift 'clip'"),
        (("cholesky",), "reads 5 channels"),
    ],
)
def test_errors(arguments, message):
    with pytest.raises(MetricZooError, match=message):
        metric_from_raw(torch.zeros(1, 7, 1, 1), *arguments)


@pytest.mark.parametrize("name", PARAMETRIZATIONS)
@pytest.mark.parametrize("spread", [3, 20, 100])
@pytest.mark.parametrize("eps", [0.0, 1e-6])
def test_an_exploding_head_stays_finite_in_float32(name, spread, eps):
    """Anisotropies at which m11 * m22 - m12^2 cancels: values and gradients must stay numbers."""
    raw = (torch.randn(2000, PARAMETRIZATIONS[name].channels, 1, 1) * spread).requires_grad_()
    metric = metric_from_raw(raw, name, "sigmoid", 0.1, MatrixOptions(eps=eps))
    assert metric.packed.isfinite().all()
    positions = ball_samples("grid", (3, 3)).positions(metric)
    assert positions.isfinite().all()
    positions.sum().backward()
    assert raw.grad.isfinite().all()


@pytest.mark.parametrize("name", PARAMETRIZATIONS)
def test_the_determinant_is_that_of_the_matrix(name):
    rule = PARAMETRIZATIONS[name]
    channels = tuple(torch.randn(rule.channels - 2, 50, dtype=torch.float64))
    m11, m12, m22, determinant = rule.matrix(channels, MatrixOptions())
    expected = np.linalg.det(torch.stack((m11, m12, m12, m22), dim=-1).view(50, 2, 2).numpy())
    np.testing.assert_allclose(determinant, expected, rtol=1e-9)
