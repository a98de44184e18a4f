r"""Randers balls as translated ellipses, sampled by the linear map that takes the unit disc onto them.

Randers metrics are Zermelo navigation: on a Riemannian metric h, in a wind W (Bao, Robles, Shen, *Zermelo navigation on
Riemannian manifolds*, J. Differential Geom. 66, 2004, https://arxiv.org/abs/math/0311233). With
:math:`\lambda = 1 - |\omega|^2_{M^{-1}}` the ball :math:`F \le 1` is :math:`W + \{u : u^T h u \le 1\}`,
:math:`h = \lambda (M - \omega \omega^T)`, :math:`W = -M^{-1} \omega / \lambda`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from metric_zoo.geometry.randers import PACKED_CHANNELS


def ellipse(packed: Tensor) -> Tensor:
    r"""The map :math:`u \mapsto W + h^{-1/2} u` of a metric's ball, less the identity.

    The symmetric root has a closed form in the plane: with :math:`s = \sqrt{\det h}` and
    :math:`t = \sqrt{\mathrm{tr}\, h + 2 s}` it is :math:`h^{-1/2} = (\mathrm{adj}\, h + s I) / (s t)`.

    Args:
        packed: ``(B, 5*G, H, W)`` as of `RandersMetric`, feasible.

    Returns:
        ``(B, 5*G, H, W)``: per group the entries xx, xy and yy of :math:`h^{-1/2} - I`, then W (x, y), in pixels for a
        disc of one pixel's radius. Exactly zeros for the Euclidean metric.
    """
    # Bounds are written out: of a name a compiler would make an input of its program. A square of a half axis is at
    # most 1e8, lambda at least 1e-6, and a determinant more than the rounding of its terms.
    metric = packed.unflatten(1, (-1, PACKED_CHANNELS))
    # The map of M / c and omega / sqrt(c) is sqrt(c) times the map: in these units nothing overflows. The derivative by
    # c is zero.
    largest = torch.maximum(metric[:, :, 0], metric[:, :, 2]).detach()
    unit, lift = largest.clamp_min(1e-8), (1e-8 - largest).clamp_min(0)
    pixels = 1 / unit.sqrt()
    m11, m12, m22 = (metric[:, :, :3] / unit[:, :, None]).unbind(2)
    m11, m22 = m11 + lift / unit, m22 + lift / unit
    omega_x, omega_y = (metric[:, :, 3:] * pixels[:, :, None]).unbind(2)
    determinant = (m11 * m22 - m12 * m12).clamp_min(8 * torch.finfo(packed.dtype).eps)
    towards_x, towards_y = m22 * omega_x - m12 * omega_y, m11 * omega_y - m12 * omega_x
    rest = (1 - (omega_x * towards_x + omega_y * towards_y) / determinant).clamp_min(1e-6)
    # h is lambda times this, whose determinant is lambda det M.
    h11, h12, h22 = m11 - omega_x**2, m12 - omega_x * omega_y, m22 - omega_y**2
    root = (rest * determinant).sqrt()
    trace = h11 + h22
    trace = torch.where(trace < 2 * root, 2 * root, trace)  # by rounding alone
    scale = pixels / (root * (rest * (trace + 2 * root)).sqrt())
    wind = -pixels / (rest * determinant)
    numbers = (
        *((h22 + root) * scale - 1, -h12 * scale, (h11 + root) * scale - 1),
        *(wind * towards_x, wind * towards_y),
    )
    return torch.stack(numbers, 2).flatten(1, 2)


def onto_ellipse(numbers: Sequence[Tensor], x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Where `ellipse`'s five numbers, one by one, take a vector of the disc: (x, y)."""
    xx, xy, yy, wind_x, wind_y = numbers
    return x + (xx * x + xy * y + wind_x), y + (xy * x + yy * y + wind_y)
