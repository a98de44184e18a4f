"""Randers metrics: the norm, its dual and its unit ball (Metric Convolutions, ICCV 2025,
https://arxiv.org/abs/2406.05400, section 3)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from metric_zoo.errors import MetricZooError
from metric_zoo.geometry.precision import at_least_float32

PACKED_CHANNELS = 5
"""Channels of one packed metric: m11, m12, m22, omega_x, omega_y."""


class RandersMetric:
    r"""A field of Randers norms :math:`F(u) = \sqrt{u^T M u} + \omega^T u` on the plane.

    ``M`` is a symmetric positive definite 2x2 matrix and ``omega`` a 2-vector (the drift), one pair per output
    pixel and metric group. Vectors are (x, y): x along columns, y along rows, in pixels. ``F`` is positive, hence an
    asymmetric norm, iff ``|omega|_{M^-1} < 1``; ``omega = 0`` is a Riemannian metric.

    Source: Dagès, Lindenbaum, Bruckstein, *Metric Convolutions*, ICCV 2025, https://arxiv.org/abs/2406.05400,
    section 3.

    Args:
        packed: ``(B, 5*G, H, W)`` floating-point tensor; the channels of group ``g`` are ``5*g + (m11, m12, m22,
            omega_x, omega_y)``.

    Raises:
        MetricZooError: if ``packed`` is not a floating-point tensor of that shape.

    Example:
        >>> import torch, metric_zoo as mz
        >>> metric = mz.geometry.RandersMetric.identity(batch=1, groups=1, height=4, width=4)
        >>> metric.norm(torch.tensor([[3.0, 4.0]]))[0, 0, 0, 0, 0].item()
        5.0
    """

    __slots__ = ("packed",)

    def __init__(self, packed: Tensor) -> None:
        if packed.dim() != 4 or packed.shape[1] == 0 or packed.shape[1] % PACKED_CHANNELS:
            raise MetricZooError(f"packed metric has shape {tuple(packed.shape)}, expected (B, 5*G, H, W) with G >= 1")
        if not packed.is_floating_point():
            raise MetricZooError(f"packed metric has dtype {packed.dtype}, expected a floating-point type")
        self.packed = packed

    @classmethod
    def from_components(cls, m11: Tensor, m12: Tensor, m22: Tensor, omega_x: Tensor, omega_y: Tensor) -> RandersMetric:
        """Pack five ``(B, G, H, W)`` fields."""
        return cls(torch.stack((m11, m12, m22, omega_x, omega_y), dim=2).flatten(1, 2))

    @classmethod
    def identity(cls, batch: int, groups: int, height: int, width: int, *, device=None, dtype=None) -> RandersMetric:
        """The Euclidean metric ``M = I, omega = 0`` at every pixel."""
        one = torch.tensor((1.0, 0.0, 1.0, 0.0, 0.0), device=device, dtype=dtype)
        return cls(one.repeat(groups).view(1, -1, 1, 1).expand(batch, -1, height, width).contiguous())

    def __repr__(self) -> str:
        batch, _, height, width = self.packed.shape
        return f"RandersMetric(batch={batch}, groups={self.groups}, height={height}, width={width})"

    @property
    def groups(self) -> int:
        """Number of metric groups G."""
        return self.packed.shape[1] // PACKED_CHANNELS

    @property
    def components(self) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """``(m11, m12, m22, omega_x, omega_y)``, each ``(B, G, H, W)``."""
        m11, m12, m22, omega_x, omega_y = self.packed.unflatten(1, (self.groups, PACKED_CHANNELS)).unbind(2)
        return m11, m12, m22, omega_x, omega_y

    @property
    def matrix(self) -> Tensor:
        """``M`` as ``(B, G, 2, 2, H, W)``, rows and columns in (x, y)."""
        m11, m12, m22, _, _ = self.components
        return torch.stack((m11, m12, m12, m22), dim=2).unflatten(2, (2, 2))

    @property
    def drift(self) -> Tensor:
        """``omega`` as ``(B, G, 2, H, W)``, in (x, y)."""
        return torch.stack(self.components[3:], dim=2)

    def norm(self, u: Tensor) -> Tensor:
        """``F(u)``, the asymmetric length of ``u``.

        Args:
            u: vectors (x, y) in pixels: either ``(N, 2)``, the same N at every pixel, or a field broadcastable to
                ``(B, G, N, 2, H, W)``.

        Returns:
            ``(B, G, N, H, W)``.

        Raises:
            MetricZooError: if ``u`` has neither shape.
        """
        quadratic, linear, _ = self._forms(u)
        return torch.sqrt(quadratic) + linear

    def unit_norm(self, u: Tensor) -> Tensor:
        """``F(u / |u|)``, arranged so that the Euclidean metric gives exactly 1 in every dtype.

        Args:
            u: non-zero vectors, as for `norm`.

        Returns:
            ``(B, G, N, H, W)``.
        """
        quadratic, linear, square = self._forms(u)
        return torch.sqrt(quadratic / square) + linear / torch.sqrt(square)

    def _forms(self, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """``u^T M u``, ``omega^T u`` and ``u^T u``."""
        if u.dim() == 2 and u.shape[1] == 2:
            x, y = (c.view(-1, 1, 1) for c in u.unbind(1))
        elif u.dim() == 6 and u.shape[3] == 2:
            x, y = u.unbind(3)
        else:
            raise MetricZooError(f"u has shape {tuple(u.shape)}, expected (N, 2) or (B, G, N, 2, H, W)")
        m11, m12, m22, omega_x, omega_y = (c.unsqueeze(2) for c in self.components)
        quadratic = m11 * (x * x) + m12 * (2 * x * y) + m22 * (y * y)
        # Positive in exact arithmetic; rounding of an extreme M must not make a root of a negative number.
        quadratic = quadratic.clamp_min(torch.finfo(quadratic.dtype).tiny)
        return quadratic, omega_x * x + omega_y * y, x * x + y * y

    def drift_norm(self) -> Tensor:
        """``|omega|_{M^-1}``, ``(B, G, H, W)``; the metric is feasible where this is below 1."""
        return torch.sqrt(self._drift_square())

    def _drift_square(self) -> Tensor:
        """A sum of squares, not the adjugate's form, whose terms may cancel to less than 0."""
        m11, m12, m22, omega_x, omega_y = self.components
        wide = m11 >= m22
        pivot, along = torch.where(wide, m11, m22), torch.where(wide, omega_x, omega_y)
        rest = pivot * torch.where(wide, omega_y, omega_x) - m12 * along
        return along**2 / pivot + rest / pivot * (rest / (m11 * m22 - m12**2))

    def is_feasible(self) -> Tensor:
        """Boolean ``(B, G, H, W)``: M is positive definite and ``|omega|_{M^-1} < 1``; False where a value is NaN."""
        m11, m12, m22, _, _ = self.components
        return (m11 > 0) & (m11 * m22 - m12**2 > 0) & (self.drift_norm() < 1)

    def check_feasible(self) -> None:
        """Refuse what is no Randers metric.

        Raises:
            MetricZooError: naming the first pixel where M is not positive definite, the drift's length is 1 or more,
                or a value is not finite.
        """
        feasible = self.is_feasible()
        if bool(feasible.all()):
            return
        batch, group, row, column = (~feasible).nonzero()[0].tolist()
        values = ", ".join(f"{field[batch, group, row, column].item():.4g}" for field in self.components)
        length = self.drift_norm()[batch, group, row, column].item()
        raise MetricZooError(
            f"infeasible metric at image {batch}, group {group}, row {row}, column {column}: (m11, m12, m22, omega_x, "
            f"omega_y) = ({values}), |omega| = {length:.4g} in the dual norm; M must be positive definite and "
            "|omega| < 1 (RandersMetric.projected makes it so)"
        )

    def projected(self, least: float = 1e-3) -> RandersMetric:
        r"""The nearest feasible metric, pixel by pixel; one that is feasible by a margin stays as it is, bit by bit.

        Eigenvalues of M below ``least`` become it (the nearest matrix in the Frobenius norm), then a drift longer than
        ``1 - least`` in the dual norm is shortened to that.

        Args:
            least: in (0, 1).

        Raises:
            MetricZooError: for another ``least``, or values that are not finite.
        """
        if not 0 < least < 1:
            raise MetricZooError(f"least={least}, expected 0 < least < 1")
        if not bool(self.packed.isfinite().all()):
            raise MetricZooError(f"{int((~self.packed.isfinite()).sum())} numbers of the metric are not finite")
        return self.bounded(least)

    def bounded(self, least: float) -> RandersMetric:
        """`projected` without its checks: what is not finite stays so, and nothing waits for the device.

        No ball reaches further than ``least ** -0.5`` without drift, and than ``least ** -1.5`` with one. In closed
        form, whose gradient is finite where the eigenvalues agree or the drift is 0.
        """
        dtype = self.packed.dtype
        eps = torch.finfo(dtype).eps
        m11, m12, m22, omega_x, omega_y = RandersMetric(at_least_float32(self.packed)).components
        # What is raised is raised to where this dtype tells a drift's length to within the margin.
        matrix = _raised(m11, m12, m22, least, min(4 * eps / least, 1 / 16))
        square = RandersMetric.from_components(*matrix, omega_x, omega_y)._drift_square()
        # A drift that is shortened stays feasible whatever rounding has done to the determinant.
        m11, m12, m22 = matrix
        doubt = 1 + 8 * eps * (m11 + m22) ** 2 / (m11 * m22 - m12**2)
        limit = (1 - least) ** 2
        factor = torch.sqrt(torch.where(square > limit, limit / (square * doubt).clamp_min(limit), 1.0))
        return RandersMetric(
            RandersMetric.from_components(*matrix, factor * omega_x, factor * omega_y).packed.to(dtype)
        )

    def dual(self) -> RandersMetric:
        r"""The dual metric :math:`F^*(v) = \sup_{F(u) \le 1} v^T u`, again a Randers metric.

        With :math:`a = 1 - |\omega|^2_{M^{-1}}`: :math:`M^* = (a M^{-1} + (M^{-1}\omega)(M^{-1}\omega)^T) / a^2` and
        :math:`\omega^* = -M^{-1}\omega / a`. Defined where the metric is feasible. The dual of the dual is the metric.
        """
        m11, m12, m22, omega_x, omega_y = self.components
        det = m11 * m22 - m12**2
        i11, i12, i22 = m22 / det, -m12 / det, m11 / det
        v_x, v_y = i11 * omega_x + i12 * omega_y, i12 * omega_x + i22 * omega_y
        a = 1 - (omega_x * v_x + omega_y * v_y)
        return RandersMetric.from_components(
            (a * i11 + v_x * v_x) / a**2, (a * i12 + v_x * v_y) / a**2, (a * i22 + v_y * v_y) / a**2, -v_x / a, -v_y / a
        )

    def unit_ball(self, n: int = 64) -> Tensor:
        r"""``n`` points of the boundary of the unit tangent ball :math:`\{u : F(u) \le 1\}`.

        The point in direction :math:`u_t = (\cos t, \sin t)`, :math:`t = 2\pi j / n`, is :math:`u_t / F(u_t)`.

        Returns:
            ``(B, G, n, 2, H, W)``, (x, y) in pixels relative to the ball's centre.

        Raises:
            MetricZooError: if ``n < 1``.
        """
        if n < 1:
            raise MetricZooError(f"unit_ball: n is {n}, expected at least 1 point")
        angles = torch.arange(n, dtype=self.packed.dtype, device=self.packed.device) * (2 * math.pi / n)
        u = torch.stack((angles.cos(), angles.sin()), dim=1)
        return u.view(n, 2, 1, 1) / self.norm(u).unsqueeze(3)


def _hypotenuse(a: Tensor, b: Tensor) -> Tensor:
    """`torch.hypot`, which has no translation to ONNX, for numbers that are not both 0."""
    scale = torch.maximum(a.abs(), b.abs()).detach()  # nothing overflows, and it cancels
    return scale * torch.sqrt((a / scale) ** 2 + (b / scale) ** 2)


def _raised(m11: Tensor, m12: Tensor, m22: Tensor, least: float, share: float) -> tuple[Tensor, Tensor, Tensor]:
    """Eigenvalues below ``least`` become it, or ``share`` of the largest magnitude if that is more; others stay.

    The smaller one is the determinant over the larger: the difference of their mean and half their distance is
    nothing but rounding where one is much larger. What they lack is added along their eigenvectors.
    """
    middle, difference = (m11 + m22) / 2, (m11 - m22) / 2
    circular = (difference == 0) & (m12 == 0)  # any two directions are eigenvectors
    half = _hypotenuse(torch.where(circular, torch.ones_like(difference), difference), m12)
    cosine, sine = difference / half, m12 / half
    half = torch.where(circular, torch.zeros_like(half), half)
    larger = torch.where(middle < 0, middle - half, middle + half)  # in magnitude
    other = (m11 * m22 - m12**2) / torch.where(larger == 0, torch.ones_like(larger), larger)
    low, high = torch.minimum(larger, other), torch.maximum(larger, other)
    missing = torch.maximum(least + torch.zeros_like(high), share * larger.abs()) - low
    raised = (
        m11 + missing * (1 - cosine) / 2,
        m12 - missing * sine / 2,
        m22 + missing * (1 + cosine) / 2,
    )
    smallest = (least, 0.0, least)
    m11, m12, m22 = (
        torch.where(high < least, torch.full_like(same, floor), torch.where(low < least, new, same))
        for same, new, floor in zip((m11, m12, m22), raised, smallest, strict=True)
    )
    return m11, m12, m22
