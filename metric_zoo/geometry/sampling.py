"""Where a unit tangent ball is sampled: along rays (``polar``, ``onion``, ``grid``) or by a map (``zermelo``)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from metric_zoo.errors import MetricZooError, suggest
from metric_zoo.geometry.parametrize import EPS
from metric_zoo.geometry.randers import RandersMetric
from metric_zoo.geometry.zermelo import ellipse, onto_ellipse

RAY_SAMPLINGS = ("grid", "polar", "onion")
SAMPLINGS = (*RAY_SAMPLINGS, "zermelo")
LOSSLESS_SAMPLINGS = ("grid", "zermelo")
"""Those that are the ordinary grid for the Euclidean metric."""

MIN_NORM = 1e-6
"""A radius of a million pixels is beyond every image; bounding it keeps gradients finite."""


@dataclass(frozen=True)
class BallSamples:
    r"""K samples of a unit ball: :math:`y_i = a_i / (F(u_i / |u_i|) + \epsilon)`.

    One formula serves every sampling: ``polar`` and ``onion`` take :math:`a_i = s_i u_i` of a unit direction; ``grid``
    takes :math:`a_i = u_i = g_i` and no epsilon, so that for the Euclidean metric the denominator is exactly 1 and
    every sample lies exactly on the ordinary grid.

    Attributes:
        displacement: ``(K, 2)`` float64, :math:`a_i` in (x, y), pixels.
        direction: ``(K, 2)`` float64, :math:`u_i`, of any length but 0.
        eps: :math:`\epsilon`.
    """

    displacement: Tensor
    direction: Tensor
    eps: float

    def positions(self, metric: RandersMetric) -> Tensor:
        """Sample positions ``(B, G*K, 2, H, W)``, (x, y) in pixels relative to the window's centre."""
        like = {"device": metric.packed.device, "dtype": metric.packed.dtype}
        norm = metric.unit_norm(self.direction.to(**like)) + self.eps
        radius = 1 / norm.clamp_min(MIN_NORM)
        return (self.displacement.to(**like).view(-1, 2, 1, 1) * radius.unsqueeze(3)).flatten(1, 2)


@dataclass(frozen=True)
class EllipseSamples(BallSamples):
    r"""K samples of a unit ball: :math:`y_i = W + h^{-1/2} g_i`, the ball as a translated ellipse, see `ellipse`.

    Attributes:
        displacement, direction, eps: as of the ordinary grid.
    """

    def positions(self, metric: RandersMetric) -> Tensor:
        """As of `BallSamples.positions`."""
        numbers = ellipse(metric.packed).unflatten(1, (-1, 1, 5)).unbind(3)
        g_x, g_y = self.displacement.to(numbers[0])[..., None, None].unbind(1)
        return torch.stack(onto_ellipse(numbers, g_x, g_y), 3).flatten(1, 2)


def grid_offsets(kernel_size: tuple[int, int], dilation: tuple[int, int] = (1, 1)) -> Tensor:
    """The ordinary kernel's grid relative to its centre: ``(K, 2)`` float64 (x, y), row-major, in pixels."""
    (kh, kw), (dh, dw) = kernel_size, dilation
    y = (torch.arange(kh, dtype=torch.float64) - (kh - 1) / 2) * dh
    x = (torch.arange(kw, dtype=torch.float64) - (kw - 1) / 2) * dw
    return torch.stack((x.repeat(kh), y.repeat_interleave(kw)), dim=1)


def ball_samples(sampling: str, kernel_size: tuple[int, int], dilation: tuple[int, int] = (1, 1)) -> BallSamples:
    """The sampling table of a kernel (Metric Convolutions, ICCV 2025, https://arxiv.org/abs/2406.05400, section 4;
    ``grid`` is this project's).

    It is made anew by every call: a table kept from a call under `torch.export` would be a fake one.

    Args:
        sampling: ``grid`` (row-major, dilation included), ``zermelo`` (the same, moved by the map of the ball's
            ellipse), ``polar`` (k angles x k radii, radius-major; the centre is not sampled) or ``onion`` (rings of 8q
            points around the centre). The last two ignore ``dilation``.
        kernel_size: (height, width).
        dilation: (height, width).

    Raises:
        MetricZooError: for an unknown sampling, or a kernel the sampling is not defined for.
    """
    check_sampling(sampling, kernel_size)
    if sampling == "grid":
        return _grid(kernel_size, dilation)
    if sampling == "zermelo":
        grid = _grid(kernel_size, dilation)
        return EllipseSamples(grid.displacement, grid.direction, grid.eps)
    return _polar(kernel_size[0]) if sampling == "polar" else _onion(kernel_size[0])


def check_sampling(sampling: str, kernel_size: tuple[int, int]) -> None:
    """Check that a sampling exists and is defined for a kernel.

    Raises:
        MetricZooError: saying what to use instead.
    """
    if sampling not in SAMPLINGS:
        raise MetricZooError(f"unknown sampling {sampling!r}{suggest(sampling, SAMPLINGS)}; known: {SAMPLINGS}")
    if sampling not in LOSSLESS_SAMPLINGS and kernel_size[0] != kernel_size[1]:
        raise MetricZooError(f"sampling {sampling!r} needs a square kernel, got {kernel_size}; use sampling='grid'")
    if sampling == "onion" and kernel_size[0] % 2 == 0:
        raise MetricZooError(
            f"sampling 'onion' needs an odd kernel, got {kernel_size[0]}; use sampling='grid' or 'polar'"
        )


def _grid(kernel_size: tuple[int, int], dilation: tuple[int, int]) -> BallSamples:
    offsets = grid_offsets(kernel_size, dilation)
    # The centre cell stays put whatever its direction; one that is not 0 keeps F, and so the gradient, finite.
    centre = (offsets == 0).all(1, keepdim=True).to(offsets)
    direction = torch.cat((offsets[:, :1] + centre, offsets[:, 1:]), dim=1)
    return BallSamples(offsets, direction, eps=0.0)


def _polar(k: int) -> BallSamples:
    angles = torch.arange(k, dtype=torch.float64).repeat(k) * (2 * math.pi / k)
    radii = (torch.arange(k, dtype=torch.float64) + 1).repeat_interleave(k) / k
    return _rays(angles, radii)


def _onion(k: int) -> BallSamples:
    rings = k // 2
    angles, radii = [torch.zeros(1, dtype=torch.float64)], [torch.zeros(1, dtype=torch.float64)]
    for ring in range(1, rings + 1):
        angles.append(torch.arange(8 * ring, dtype=torch.float64) * (2 * math.pi / (8 * ring)))
        radii.append(torch.full((8 * ring,), ring / rings, dtype=torch.float64))
    return _rays(torch.cat(angles), torch.cat(radii))


def _rays(angles: Tensor, radii: Tensor) -> BallSamples:
    direction = torch.stack((angles.cos(), angles.sin()), dim=1)
    return BallSamples(radii[:, None] * direction, direction, eps=EPS)
