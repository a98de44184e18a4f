"""Where the samples of a sparse kernel complex lie before it is fitted."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from metric_zoo.errors import MetricZooError, suggest

INITS = ("sparse", "radial", "random")
SPARSE = INITS[0]
"""That of the paper: the first layer lies where the kernel does."""


def initial_offsets(init: str, target: Tensor, samples: int, layers: int, seed: int) -> Tensor:
    """``(layers, samples, 2)`` offsets, (x, y) in pixels, for a target ``(M, M)``, by one of `INITS`.

    Raises:
        MetricZooError: for an unknown name.
    """
    if init not in INITS:
        raise MetricZooError(f"unknown init {init!r}{suggest(str(init), INITS)}; known: {INITS}")
    generator = torch.Generator().manual_seed(seed)
    extent = half_extent(target)
    if init == "random":
        return (torch.rand(layers, samples, 2, generator=generator, device="cpu") * 2 - 1) * extent
    if init == "radial" or layers == 1:
        return radial(samples, layers, extent) if init == "radial" else scattered(target, samples, generator)[0][None]
    points, spacing = scattered(target, samples, generator)
    # The other layers fill the gaps between the first one's points, and all of them together reach as far as the
    # target does: the first gives way by what the others add.
    share = min(spacing / extent, 0.5)
    return torch.cat(((1 - share) * points[None], radial(samples, layers - 1, share * extent)))


def half_extent(target: Tensor) -> float:
    """Pixels from the middle of ``(M, M)`` to its furthest row or column that is not all zero, at least one half."""
    rows, columns = torch.nonzero(target, as_tuple=True)
    middle = target.shape[-1] // 2
    return max(0.5, *((places - middle).abs().max().item() for places in (rows, columns)))


def radial(samples: int, layers: int, extent: float) -> Tensor:
    r"""Increasing circles (DISK, initialisation IR): layer l on one of radius :math:`l\,\Delta r` with
    :math:`\Delta r = 2R / (L(L+1))`, so that all together reach ``extent``.
    """
    angles = 2 * math.pi * torch.arange(samples, device="cpu") / samples
    circle = torch.stack((angles.cos(), angles.sin()), dim=-1)
    radii = 2 * extent / (layers * (layers + 1)) * torch.arange(1, layers + 1, device="cpu")
    return radii[:, None, None] * circle


def scattered(target: Tensor, samples: int, generator: torch.Generator) -> tuple[Tensor, float]:
    r"""Points of a target with a distance between them (DISK, initialisation SS).

    Pixels are drawn at random and refused nearer than :math:`\sqrt{S/(N\pi)}` to one that was taken, S the number of
    pixels; where that leaves too few, the distance shrinks, in the end to nothing.

    Returns:
        ``(samples, 2)`` offsets, and the distance that was asked for, in pixels.
    """
    strength = target.abs()
    # The faint skirt of an optical kernel is no shape to be filled.
    inside = strength > 0.01 * strength.max()
    rows, columns = torch.nonzero(inside, as_tuple=True)
    points = torch.stack((columns, rows), dim=-1).float() - target.shape[-1] // 2
    wanted = math.sqrt(len(points) / (samples * math.pi))
    order = torch.randperm(len(points), generator=generator, device="cpu")
    distance = wanted
    while distance > 0.5:
        taken = _apart(points[order], samples, distance)
        if len(taken) == samples:
            return taken, wanted
        distance *= 0.95
    # Fewer pixels than samples, or hardly more: all are taken, and some again, near by, since two samples at one place
    # would stay there together.
    again = order.repeat(-(-samples // len(points)))[:samples]
    apart = torch.rand(samples, 2, generator=generator, device="cpu") - 0.5
    return points[again] + apart * (torch.arange(samples, device="cpu") >= len(points))[:, None], wanted


def _apart(points: Tensor, samples: int, distance: float) -> Tensor:
    """As many as ``samples`` of these points, in their order, none nearer to another than ``distance``."""
    free = torch.ones(len(points), dtype=torch.bool, device="cpu")
    taken = []
    for _ in range(samples):
        candidates = torch.nonzero(free)
        if len(candidates) == 0:
            break
        taken.append(points[candidates[0, 0]])
        free &= (points - taken[-1]).norm(dim=-1) >= distance
    return torch.stack(taken)
