"""From the channels a metric head predicts to a feasible Randers metric (Metric Convolutions, ICCV 2025,
https://arxiv.org/abs/2406.05400, section 4).

Five parametrizations of the matrix M and three rules that keep the drift omega feasible.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from metric_zoo.errors import MetricZooError, suggest
from metric_zoo.geometry.precision import at_least_float32
from metric_zoo.geometry.randers import RandersMetric

EPS = 1e-6
"""The paper's guard against division by zero."""

DRIFTS = ("sigmoid", "sigmoid_detach", "clip_detach")

Matrix = tuple[Tensor, Tensor, Tensor, Tensor]
"""``m11, m12, m22`` and the determinant, from the factors: in float32 ``m11 * m22 - m12 ** 2`` may cancel below 0."""


@dataclass(frozen=True)
class MatrixOptions:
    """What the formulas need besides the raw channels.

    Attributes:
        eps_L: lower bound of the diagonals.
        scale: range of the scaled parametrizations' common factor.
        eps: the paper's guard in the direction, the ratio and the inverse of M; 0 is exact. With the guard, a matrix
            whose determinant is of its size (1e-6) lets the drift exceed its bound.
    """

    eps_L: float = 0.01
    scale: tuple[float, float] = (0.1, 1.9)
    eps: float = EPS


@dataclass(frozen=True)
class Parametrization:
    """One way to read M from raw channels.

    Attributes:
        channels: raw channels per metric group, the last two being the unconstrained drift.
        matrix: ``(raw channels without the drift, options) -> `Matrix```.
        identity: ``options -> `` the raw values at which M = I (and, with zeros after them, omega = 0).
        paper_rows: the value each row of the head's weight starts from in the paper's program: ``"mean"`` is
            ``1 / (k^2 C_in)``, ``"eps"`` is 1e-6, ``None`` is the framework's default.
    """

    channels: int
    matrix: Callable[[tuple[Tensor, ...], MatrixOptions], Matrix]
    identity: Callable[[MatrixOptions], tuple[float, ...]]
    paper_rows: tuple[str | None, ...]


def metric_from_raw(
    raw: Tensor,
    parametrization: str = "eigen_scaled",
    drift: str = "sigmoid_detach",
    eps_omega: float = 0.5,
    options: MatrixOptions | None = None,
) -> RandersMetric:
    """Turn raw head channels into a feasible metric.

    Args:
        raw: ``(B, P*G, H, W)``, P channels per metric group (5 to 7, by the parametrization). Half types are computed
            in float32.
        parametrization: one of `PARAMETRIZATIONS`.
        drift: one of `DRIFTS`.
        eps_omega: in [0, 1]; the drift is kept below ``1 - eps_omega`` in the dual norm. 1 is Riemannian: omega = 0.
        options: ``eps_L``, ``scale`` and ``eps`` of the matrix formulas.

    Raises:
        MetricZooError: for an unknown name or a wrong number of channels.
    """
    rule = get_parametrization(parametrization)
    if raw.dim() != 4 or raw.shape[1] == 0 or raw.shape[1] % rule.channels:
        raise MetricZooError(
            f"parametrization {parametrization!r} reads {rule.channels} channels per metric group, "
            f"got a raw tensor of shape {tuple(raw.shape)}"
        )
    *channels, omega_x, omega_y = at_least_float32(raw).unflatten(1, (-1, rule.channels)).unbind(2)
    options = options or MatrixOptions()
    matrix = rule.matrix(tuple(channels), options)
    omega = constrain_drift(matrix, (omega_x, omega_y), drift, eps_omega, options.eps)
    return RandersMetric.from_components(*matrix[:3], *omega)


def constrain_drift(
    matrix: Matrix, omega: tuple[Tensor, Tensor], drift: str, eps_omega: float, eps: float = EPS
) -> tuple[Tensor, Tensor]:
    r"""Scale omega to be feasible.

    With :math:`n = \sqrt{\omega^T (M + \epsilon I)^{-1} \omega + 10^{-6}}`, the inverse by
    :math:`adj / (det + \epsilon)`, the factor is :math:`t / (n + 10^{-6})`. For ``sigmoid`` and ``sigmoid_detach``
    :math:`t = (2\sigma(n) - 1)(1 - \epsilon_\omega)`, for ``clip_detach`` :math:`t = \min(n, 1 - \epsilon_\omega)`;
    the ``detach`` rules pass no gradient through the factor. Source: Metric Convolutions, ICCV 2025,
    https://arxiv.org/abs/2406.05400, section 4.

    Args:
        matrix: fields of any one shape.
        omega: the unconstrained drift (x, y), fields of that shape.
        drift: one of `DRIFTS`.
        eps_omega: in [0, 1].
        eps: :math:`\epsilon`; 0 keeps the bound ``1 - eps_omega`` strictly.

    Returns:
        The constrained drift (x, y).

    Raises:
        MetricZooError: for an unknown rule.
    """
    if drift not in DRIFTS:
        raise MetricZooError(f"unknown drift {drift!r}{suggest(drift, DRIFTS)}; known: {DRIFTS}")
    m11, m12, m22, determinant = matrix
    omega_x, omega_y = omega
    a11, a22 = m11 + eps, m22 + eps
    quadratic = a22 * omega_x**2 - 2 * m12 * omega_x * omega_y + a11 * omega_y**2
    determinant = determinant + eps * (m11 + m22) + eps**2 + eps
    # A form that is positive in exact arithmetic, over a determinant whose inverse square must not overflow.
    smallest = torch.finfo(m11.dtype).eps ** 2
    n = torch.sqrt(quadratic.clamp_min(0) / determinant.clamp_min(smallest) + EPS)
    limit = 1 - eps_omega
    target = n.clamp(max=limit) if drift == "clip_detach" else 2 * (torch.sigmoid(n) - 0.5) * limit
    factor = target / (n + EPS)
    if drift != "sigmoid":
        factor = factor.detach()
    return factor * omega_x, factor * omega_y


def identity_raw(parametrization: str, options: MatrixOptions) -> tuple[float, ...]:
    """The raw channels of one group at which the metric is Euclidean: the bias of a head that starts lossless.

    Raises:
        MetricZooError: if ``options.scale`` does not contain 1.
    """
    rule = get_parametrization(parametrization)
    return (*rule.identity(options), 0.0, 0.0)


def get_parametrization(name: str) -> Parametrization:
    """Look a parametrization up.

    Raises:
        MetricZooError: for an unknown name, with the nearest known one.
    """
    if name not in PARAMETRIZATIONS:
        known = tuple(PARAMETRIZATIONS)
        raise MetricZooError(f"unknown parametrization {name!r}{suggest(name, known)}; known: {known}")
    return PARAMETRIZATIONS[name]


def _cholesky(p: tuple[Tensor, ...], o: MatrixOptions) -> Matrix:
    a, c = p[0].abs() + o.eps_L, p[2].abs() + o.eps_L
    return a * a, a * p[1], p[1] * p[1] + c * c, (a * c) ** 2


def _ldlt(p: tuple[Tensor, ...], o: MatrixOptions) -> Matrix:
    d1, d2 = p[1].abs() + o.eps_L, p[2].abs() + o.eps_L
    return d1, p[0] * d1, p[0] * p[0] * d1 + d2, d1 * d2


def _eigen(p: tuple[Tensor, ...], o: MatrixOptions) -> Matrix:
    return spectral_matrix(unit_direction(p[0], p[1], o.eps), p[2].abs() + o.eps_L, p[3].abs() + o.eps_L)


def _eigen_scaled(p: tuple[Tensor, ...], o: MatrixOptions) -> Matrix:
    scale = _scale(p[4], o)
    along, across = scale * (2 * torch.sigmoid(p[2])), scale * (2 * torch.sigmoid(p[3]))
    return spectral_matrix(unit_direction(p[0], p[1], o.eps), along, across)


def _eigen_scaled_ratio(p: tuple[Tensor, ...], o: MatrixOptions) -> Matrix:
    scale = _scale(p[4], o)
    along, across = scale * (2 * torch.sigmoid(p[2])), scale / (2 * torch.sigmoid(p[3]) + o.eps).clamp_min(EPS)
    return spectral_matrix(unit_direction(p[0], p[1], o.eps), along, across)


def _scale(p: Tensor, o: MatrixOptions) -> Tensor:
    low, high = o.scale
    return (low + high) / 2 + 2 * (torch.sigmoid(p) - 0.5) * ((high - low) / 2)


def spectral_matrix(e: tuple[Tensor, Tensor], along: Tensor, across: Tensor) -> Matrix:
    """``along * e e^T + across * e_perp e_perp^T`` with ``e_perp = (-e_y, e_x)``."""
    e_x, e_y = e
    return (
        along * (e_x * e_x) + across * (e_y * e_y),
        along * (e_x * e_y) - across * (e_x * e_y),
        along * (e_y * e_y) + across * (e_x * e_x),
        along * across * (e_x * e_x + e_y * e_y) ** 2,
    )


def unit_direction(x: Tensor, y: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """``(p + eps) / (|p| + eps)``; at ``p = 0``, where a direction is arbitrary, the x axis.

    The formula alone would give (1, 1) at 0, of length sqrt(2), and double the matrix there. The x axis is reached by
    a unit step that does not depend on p, so the gradient at 0 is that of the direction at (1, 0): finite, not zero.
    """
    at_zero = (x * x + y * y) < torch.finfo(x.dtype).tiny
    x = x + at_zero.to(x.dtype)
    length = torch.sqrt(x * x + y * y)
    return (x + eps) / (length + eps), (y + eps) / (length + eps)


def _identity_scaled(o: MatrixOptions) -> tuple[float, ...]:
    low, high = o.scale
    if not low < 1 < high:
        raise MetricZooError(f"scale={o.scale} does not contain 1, so no head value gives the Euclidean metric")
    position = (1 - low) / (high - low)
    # The middle is written as an exact 0: the default range must start at exactly M = I.
    p4 = 0.0 if low + high == 2 else math.log(position / (1 - position))
    return 1.0, 0.0, 0.0, 0.0, p4


PARAMETRIZATIONS: dict[str, Parametrization] = {
    "cholesky": Parametrization(
        5, _cholesky, lambda o: (1 - o.eps_L, 0.0, 1 - o.eps_L), ("mean", "eps", "mean", "eps", "eps")
    ),
    "ldlt": Parametrization(5, _ldlt, lambda o: (0.0, 1 - o.eps_L, 1 - o.eps_L), ("eps", "mean", "mean", "eps", "eps")),
    "eigen": Parametrization(6, _eigen, lambda o: (1.0, 0.0, 1 - o.eps_L, 1 - o.eps_L), (None,) * 6),
    "eigen_scaled": Parametrization(7, _eigen_scaled, _identity_scaled, (None, None, *["eps"] * 5)),
    "eigen_scaled_ratio": Parametrization(7, _eigen_scaled_ratio, _identity_scaled, (None, None, *["eps"] * 5)),
}
