"""The ``torch`` backend: one grid_sample over all samples, then a 1x1 convolution over channels and samples.

It runs on every device and is differentiable any number of times; the other backends are measured against it.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from metric_zoo.geometry.precision import at_least_float32
from metric_zoo.geometry.randers import RandersMetric
from metric_zoo.geometry.sampling import ball_samples, grid_offsets
from metric_zoo.ops.bilinear import bilinear_sample
from metric_zoo.ops.window import Window, autocasts


def sampled_conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    field: Tensor,
    mask: Tensor | None,
    sampling: str,
    window: Window,
) -> Tensor:
    """The operator of `metric_zoo.ops.dispatch.sampled`, which documents the arguments."""
    positions = sample_positions(field, sampling, window)
    x, y = _absolute(positions, window)
    batch, cells, fields = input.shape[0], window.cells, field.shape[1]
    x, y = (_by_group(c.expand(batch, -1, -1, -1), fields) for c in (x, y))
    samples = bilinear_sample(_by_group(input, fields), x, y)
    if mask is not None:
        samples = samples * mask.flatten(0, 1).unsqueeze(1).to(samples.dtype)
    # (B*G, C/G, K, Ho, Wo) -> (B, C*K, Ho, Wo): channel-major, the order in which a kernel flattens.
    samples = samples.reshape(batch, input.shape[1] * cells, *window.size)
    if not autocasts(input):
        samples = samples.to(weight.dtype)
    return _product(samples, weight.flatten(1), bias, window.groups)


def sample_positions(field: Tensor, sampling: str, window: Window) -> Tensor:
    """``(B or 1, G*K, 2, Ho, Wo)``, (x, y) in pixels relative to each window's centre."""
    field = at_least_float32(field)
    field = field.expand(*field.shape[:4], *window.size)
    if sampling not in ("offset", "position"):
        packed = field.flatten(1, 3)
        return ball_samples(sampling, window.kernel_size, window.dilation).positions(RandersMetric(packed))
    moved = field.expand(-1, -1, window.cells, -1, -1, -1).flip(3)
    if sampling == "offset":
        moved = grid_offsets(window.kernel_size, window.dilation).to(moved)[..., None, None] + moved
    return moved.flatten(1, 2)


def _by_group(field: Tensor, groups: int) -> Tensor:
    """``(B, G*n, H, W) -> (B*G, n, H, W)``."""
    return field.reshape(field.shape[0] * groups, field.shape[1] // groups, *field.shape[2:])


def _product(samples: Tensor, weight: Tensor, bias: Tensor | None, groups: int) -> Tensor:
    """``(B, C*K, Ho, Wo)`` and ``(O, C*K/groups) -> (B, O, Ho, Wo)``."""
    outputs, depth = weight.shape
    if outputs and depth:
        return F.conv2d(samples, weight[..., None, None], bias, groups=groups)
    # conv2d refuses to make no channels, and makes none of none: their sum is zero.
    samples = samples.reshape(samples.shape[0], groups, depth, *samples.shape[2:])
    total = torch.einsum("god,bgdhw->bgohw", weight.reshape(groups, outputs // groups, depth), samples).flatten(1, 2)
    return total if bias is None else total + bias[:, None, None].to(total.dtype)


def _absolute(positions: Tensor, window: Window) -> tuple[Tensor, Tensor]:
    """Add the windows' centres: ``(B, G*K, 2, Ho, Wo)`` -> x and y, each ``(B, G*K, Ho, Wo)``, in image pixels."""
    like = {"device": positions.device, "dtype": positions.dtype}
    rows, columns = (
        torch.arange(size, **like) * stride + (dilation * (kernel - 1) / 2 - before)
        for size, stride, dilation, kernel, (before, _) in zip(
            window.size, window.stride, window.dilation, window.kernel_size, window.pads, strict=True
        )
    )
    return positions[:, :, 0] + columns, positions[:, :, 1] + rows[:, None]
