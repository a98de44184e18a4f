"""Interpolation between a grid of tables, at every pixel."""

from __future__ import annotations

import torch
from torch import Tensor

from metric_zoo.ops.padding import Pads


def multilinear(coordinates: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The weights of interpolation on a grid, ``(B, D, H, W) -> (B, points, H, W)``, in row-major order."""
    alpha = coordinates.new_ones(1, 1, 1, 1)
    for axis, size in enumerate(shape):
        place = within(coordinates[:, axis : axis + 1], 0, size - 1)
        steps = torch.arange(size, dtype=place.dtype, device=place.device).view(1, -1, 1, 1)
        # By cells, not by distance: at a table itself the slope is that of the cell behind it, not zero.
        cell = place.detach().floor().clamp_max(size - 2)
        part = place - cell
        along = (steps == cell) * (1 - part) + (steps == cell + 1) * part
        alpha = (alpha[:, :, None] * along[:, None]).flatten(1, 2)
    return alpha


def blend(alpha: Tensor, tables: Tensor) -> Tensor:
    """The tables' numbers at every pixel, ``(B, points, H, W)`` and ``(points, N, n) -> (B, N, n, H, W)``."""
    return torch.einsum("bphw,pnc->bnchw", alpha, tables.to(alpha))


def within(values: Tensor, low: float, high: float) -> Tensor:
    """The nearest from ``low`` to ``high``. At either end the slope is 1, beyond 0; that of `torch.clamp` is 0 at the
    ends, too, from where a parameter would never move. NaN stays."""
    return torch.where((values >= low) & (values <= high), values, values.detach().clamp(low, high))


def row_window(samples: int) -> tuple[Pads, float]:
    """A window of one row that is as wide as there are samples and leaves an image its size: the padding, and how far
    its middle lies to the right of its pixel, in pixels."""
    samples = int(samples)  # under a tracer, too: the window is part of the program
    before = (samples - 1) // 2
    return Pads((0, 0), (before, samples - 1 - before)), (samples - 1) % 2 / 2
