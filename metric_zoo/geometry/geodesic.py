"""Unit geodesic balls: samples reached along the geodesics of a metric field, which bend where the metric changes."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from metric_zoo.errors import MetricZooError
from metric_zoo.geometry.constants import constants
from metric_zoo.geometry.randers import RandersMetric
from metric_zoo.geometry.sampling import BallSamples, EllipseSamples, ball_samples
from metric_zoo.geometry.zermelo import ellipse, onto_ellipse

STEPS = 8
_TILE = 1 << 18
"""Geodesics integrated at once: about 200 MB beside the result, of which a backward pass keeps nothing."""


def geodesic_ball(
    metric: RandersMetric,
    sampling: str = "polar",
    kernel_size: int | tuple[int, int] = 11,
    *,
    dilation: tuple[int, int] = (1, 1),
    spacing: tuple[int, int] = (1, 1),
    radius: float = 1.0,
    steps: int = STEPS,
) -> Tensor:
    r"""Samples of the unit geodesic ball around every pixel of a metric field.

    The tangent ball's sample :math:`y_i` is the point that a straight line reaches in unit time; here the line is the
    geodesic that leaves with velocity :math:`y_i`, so the sample's distance from the centre, measured by the field,
    is :math:`s_i \le 1` as long as that geodesic is a shortest one. Geodesics follow Hamilton's equations

    .. math:: \dot x = c\, \partial_p F^*(x, p), \qquad \dot p = -c\, \partial_x F^*(x, p), \qquad F^*(x, p) = 1

    of the dual norm at speed :math:`c = F(y_i)`, by the midpoint rule. The dual metric between pixels is their
    quadratic B-spline, which stays feasible and has no kinks (at a pixel it is 3/4 its own in each direction and 1/8
    either neighbour's); beyond the border it is constant. All geodesics of all pixels advance together;
    those that differ in length alone are one.

    Source: Metric Convolutions, ICCV 2025, https://arxiv.org/abs/2406.05400, unit geodesic balls; the paper
    approximates the flow by a heat kernel.

    Args:
        metric: ``(B, 5*G, H, W)`` packed, feasible.
        sampling: of `metric_zoo.geometry.SAMPLINGS`.
        kernel_size, dilation: of the kernel whose K cells are sampled.
        spacing: pixels between neighbouring metrics, (height, width): the stride of the convolution they belong to.
        radius: of the ball; the published figures use 2.
        steps: of the longest geodesic; one half a pixel long is fine enough.

    Returns:
        ``(B, G*K, 2, H, W)``, (x, y) in pixels relative to each centre, in float32 at least. Differentiable in the
        metric; a backward pass integrates again instead of keeping the way.

    Raises:
        MetricZooError: for a metric that is infeasible or not finite (with the first such pixel), an unknown sampling,
            a radius that is not positive and finite, or a count that is no whole number above 0.
    """
    size = (kernel_size, kernel_size) if isinstance(kernel_size, int) else kernel_size
    if not 0 < radius < math.inf:
        raise MetricZooError(f"radius={radius}: expected a finite one > 0")
    for name, count in (("kernel_size", size), ("spacing", spacing), ("steps", steps)):
        if not all(isinstance(n, int) and n >= 1 for n in (count if isinstance(count, tuple) else (count,))):
            raise MetricZooError(f"{name}={count}: expected whole numbers >= 1")
    metric.check_feasible()
    samples = ball_samples(sampling, size, dilation)
    return geodesic_positions(metric, samples, Rays.of(samples, radius), spacing, steps)


@dataclass(frozen=True)
class Rays:
    """Directions that samples share, as plain numbers: a table that can be kept.

    Attributes:
        direction: unit vectors (x, y).
        reach: for every ray, the length of its longest displacement, in pixels.
        index: for every sample, its ray.
        share: for every sample, which part of its ray it lies at, in [0, 1].
        eps: of the samples.
        radius: of the ball.
        moved: whether the ball's ellipse takes the directions elsewhere, at every pixel: then each sample is a ray.
    """

    direction: tuple[tuple[float, float], ...]
    reach: tuple[float, ...]
    index: tuple[int, ...]
    share: tuple[float, ...]
    eps: float
    radius: float
    moved: bool = False

    @classmethod
    def of(cls, samples: BallSamples, radius: float = 1.0) -> Rays:
        """The rays of a table of samples of a ball."""
        units = [_unit(x, y) for x, y in samples.direction.tolist()]
        lengths = [math.hypot(x, y) for x, y in samples.displacement.tolist()]
        if isinstance(samples, EllipseSamples):
            alone = (tuple(range(len(units))), (1.0,) * len(units))
            return cls(tuple(units), tuple(lengths), *alone, samples.eps, radius, moved=True)
        keys = [(round(x, 9) + 0.0, round(y, 9) + 0.0) for x, y in units]
        numbers = {key: number for number, key in enumerate(dict.fromkeys(keys))}
        index = tuple(numbers[key] for key in keys)
        reach = tuple(
            max(length for length, i in zip(lengths, index, strict=True) if i == ray) for ray in numbers.values()
        )
        share = tuple(length / reach[i] if reach[i] else 0.0 for length, i in zip(lengths, index, strict=True))
        return cls(tuple(units[index.index(ray)] for ray in numbers.values()), reach, index, share, samples.eps, radius)


def _unit(x: float, y: float) -> tuple[float, float]:
    length = math.hypot(x, y)
    return x / length, y / length


def geodesic_positions(
    metric: RandersMetric,
    samples: BallSamples,
    rays: Rays,
    spacing: tuple[int, int] = (1, 1),
    steps: int = STEPS,
) -> Tensor:
    """`geodesic_ball` for a table of samples, its rays, and a metric that is known to be feasible.

    The straight line's samples plus what the geodesics deviate from it: nothing but rounding in a constant metric.
    """
    rays = Rays(*constants(rays))
    packed = metric.packed if metric.packed.dtype == torch.float64 else metric.packed.float()
    batch, _, height, width = packed.shape
    planes = RandersMetric(packed.reshape(batch * metric.groups, 5, height, width))
    table = _cells(planes.dual().packed)
    at_pixels = table[:, 0, 0].reshape(batch * metric.groups, height, width, 5).permute(0, 3, 1, 2)
    start = RandersMetric(at_pixels).dual()
    strayed = _strayed(table, start.packed, rays, spacing, steps)
    found = rays.radius * samples.positions(start) + strayed
    return found.reshape(batch, metric.groups * len(rays.index), 2, height, width)


def _strayed(table: Tensor, start: Tensor, rays: Rays, spacing: tuple[int, int], steps: int) -> Tensor:
    """Deviations ``(P, K, 2, H, W)`` for one metric per pixel, ``start (P, 5, H, W)``, a tile of pixels at a time."""
    planes, _, height, width = start.shape
    first, row, column = (torch.arange(size, device=start.device) for size in (planes, height, width))
    first = first.view(-1, 1, 1) * (height * width)
    at = torch.stack(torch.broadcast_tensors(column, row.view(-1, 1), first)).flatten(1)
    metrics = start.transpose(0, 1).flatten(1)
    arguments = (table, rays, spacing, (height, width), steps)
    parts = [_tile(*tile, *arguments) for tile in _tiles(metrics, at, len(rays.reach))]
    found = parts[0] if len(parts) == 1 else torch.cat(parts, 2)
    return found.reshape(len(rays.index), 2, planes, height, width).permute(2, 0, 1, 3, 4)


def _tiles(metrics: Tensor, at: Tensor, rays: int) -> Iterable[tuple[Tensor, Tensor]]:
    """Pixels whose geodesics are integrated together; all of them in a program that a compiler or a tracer records,
    which must not depend on their number."""
    if torch.compiler.is_compiling() or torch.jit.is_tracing() or not isinstance(at.shape[1], int):
        return [(metrics, at)]
    pixels = max(_TILE // rays, 1)
    return zip(metrics.split(pixels, 1), at.split(pixels, 1), strict=True)


def _tile(start: Tensor, *arguments) -> Tensor:
    # The transforms of torch.func refuse the hooks by which a checkpoint works.
    transformed = not torch.compiler.is_compiling() and torch._C._are_functorch_transforms_active()
    if torch.is_grad_enabled() and start.requires_grad and not transformed:
        return checkpoint(_shoot, start, *arguments, use_reentrant=False)
    return _shoot(start, *arguments)


def _cells(dual: Tensor) -> Tensor:
    """Coefficients of the quadratic B-spline of ``(P, 5, H, W)`` around every pixel: ``(P*H*W, 3, 3, 5)``, of y^i x^j.

    They hold for half a pixel to every side. A spline of second order, since the force must not jump where a geodesic
    passes a pixel; its weights are positive, so that it is a metric wherever the pixels' are. Of equal pixels it is
    exactly their value.
    """
    spline = _spline(_spline(dual, 3), 2)  # (P, 5, H, W, 3 of x, 3 of y)
    return spline.permute(0, 2, 3, 5, 4, 1).flatten(0, 2)


def _spline(values: Tensor, axis: int) -> Tensor:
    """The coefficients of 1, t and t^2 in a new last dimension; beyond the border the values are the border's."""
    along = values.transpose(0, axis)
    before = torch.cat((along[:1], along[:-1])).transpose(0, axis)
    after = torch.cat((along[1:], along[-1:])).transpose(0, axis)
    bend = (before - values) + (after - values)
    return torch.stack((values + bend / 8, (after - before) / 2, bend / 2), -1)


def _shoot(
    start: Tensor,
    at: Tensor,
    table: Tensor,
    rays: Rays,
    spacing: tuple[int, int],
    size: tuple[int, int],
    steps: int,
) -> Tensor:
    """``(K, 2, N)``: what the samples of N pixels deviate. ``start (5, N)`` are their metrics, ``at (3, N)`` x, y
    and the first row of ``table`` that belongs to the plane."""
    scale = start.new_tensor([spacing[1], spacing[0]]).view(2, 1, 1)
    momentum, speed = _launch(start, rays)
    origin, first = at[:2].to(start)[:, None], at[2]

    def slope(moved: Tensor, momentum: Tensor) -> tuple[Tensor, Tensor]:
        return _hamilton(table, first, origin + moved / scale, momentum, speed, size, scale)

    straight, _ = slope(torch.zeros_like(momentum), momentum)
    step = 1 / steps
    strayed = torch.zeros_like(momentum)  # (2, R, N), in pixels
    samples = [strayed[:, 0]] * len(rays.share)
    for number in range(steps):
        dx, dp = slope(number * step * straight + strayed, momentum)
        half = (number + 0.5) * step * straight + strayed + step / 2 * (dx - straight)
        middle_dx, middle_dp = slope(half, momentum + step / 2 * dp)
        further, momentum = strayed + step * (middle_dx - straight), momentum + step * middle_dp
        for i, share in enumerate(rays.share):
            part = share * steps - number
            if 0 < part <= 1 + 1e-9:
                samples[i] = _between(strayed, further, step * (dx - straight), part)[:, rays.index[i]]
        strayed = further
    return torch.stack(samples)


def _between(here: Tensor, there: Tensor, tangent: Tensor, part: float) -> Tensor:
    """A point of the parabola through both ends of a step with the first end's tangent."""
    return here + part * tangent + part**2 * (there - here - tangent)


def _launch(start: Tensor, rays: Rays) -> tuple[Tensor, Tensor]:
    """The covector of dual length 1 that belongs to each ray's direction ``(2, R, N)``, and its speed F ``(R, N)``.

    Momentum over speed: a sample in the centre, whose geodesic does not move, then needs no exception.
    """
    m11, m12, m22, omega_x, omega_y = start[:, None]
    ux, uy = start.new_tensor(rays.direction).T[..., None]
    length = start.new_tensor(rays.reach)[:, None]
    if rays.moved:
        ux, uy, length = _moved(start, length * ux, length * uy)
    root = torch.sqrt(m11 * ux * ux + 2 * m12 * ux * uy + m22 * uy * uy)
    norm = root + omega_x * ux + omega_y * uy
    # Unmoved directions are divided by their norm; a moved one is the velocity itself.
    speed = length * rays.radius * (norm if rays.moved else norm / (norm + rays.eps))
    covector = torch.stack(((m11 * ux + m12 * uy) / root + omega_x, (m12 * ux + m22 * uy) / root + omega_y))
    return covector, speed


def _moved(start: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Where vectors ``(R, 1)`` are taken by the ellipses of N metrics: unit vectors and lengths, ``(R, N)``."""
    numbers = ellipse(start.T[..., None, None])[..., 0, 0].T
    x, y = onto_ellipse(list(numbers), x, y)
    square = x * x + y * y
    # In the centre of a ball without a drift: any direction, and no way to go.
    still = square == 0
    length = torch.where(still, torch.ones_like(square), square).sqrt()
    return torch.where(still, torch.ones_like(x), x) / length, y / length, torch.where(still, square, length)


def _hamilton(
    table: Tensor,
    first: Tensor,
    position: Tensor,
    momentum: Tensor,
    speed: Tensor,
    size: tuple[int, int],
    scale: Tensor,
) -> tuple[Tensor, Tensor]:
    """The time derivatives of place and momentum, ``(2, R, N)``; ``position`` is in metrics, the result in pixels."""
    height, width = size
    # NaN, to which a diverging network leads, has no cell: it stays in the distances from one below.
    column = position[0].detach().nan_to_num().round().clamp(0, width - 1)
    row = position[1].detach().nan_to_num().round().clamp(0, height - 1)
    # Half a pixel beyond the border pixels' centres the metric is constant.
    x = (position[0] - column).clamp(-0.5, 0.5)[..., None]
    y = (position[1] - row).clamp(-0.5, 0.5)[..., None]
    cell = table[first + (row * width + column).long()]  # (R, N, 3, 3, 5)
    ones, lines, squares = cell.unbind(-2)
    in_x, slope_in_x = ones + x[..., None] * (lines + x[..., None] * squares), lines + 2 * x[..., None] * squares
    low, middle, high = in_x.unbind(-2)
    value, slope_y = low + y * (middle + y * high), middle + 2 * y * high
    low, middle, high = slope_in_x.unbind(-2)
    slope_x = low + y * (middle + y * high)
    px, py = momentum
    monomials = torch.stack((px * px, 2 * px * py, py * py), -1)
    root = torch.sqrt((value[..., :3] * monomials).sum(-1))
    half = torch.cat((monomials / (2 * root)[..., None], torch.stack((px, py), -1)), -1)
    force = torch.stack(((slope_x * half).sum(-1), (slope_y * half).sum(-1))) / scale
    m11, m12, m22, omega_x, omega_y = value.unbind(-1)
    velocity = torch.stack(((m11 * px + m12 * py) / root + omega_x, (m12 * px + m22 * py) / root + omega_y))
    return speed * velocity, -speed * force
