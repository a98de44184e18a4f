"""Samples that lie alike at every pixel, as reads of whole pixels."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from metric_zoo.geometry.sampling import grid_offsets
from metric_zoo.ops.layout import is_channels_last
from metric_zoo.ops.rules import rule_of
from metric_zoo.ops.window import Window

_MANY = 8
"""Channels."""
_LEAST_PIXELS = 1024
"""Of the output, in all images."""


@dataclass(frozen=True)
class Shifts:
    """What every output pixel of a depthwise convolution reads.

    Attributes:
        first: ``(C + 1,)`` int64, where the reads of each channel begin.
        rows, columns: ``(reads,)`` int64, from the pixel; in ascending order of channel and row.
        weights: ``(reads,)``, what each counts.
    """

    first: Tensor
    rows: Tensor
    columns: Tensor
    weights: Tensor


def shifts_of(
    input: Tensor, weight: Tensor, field: Tensor, mask: Tensor | None, sampling: str, window: Window
) -> Shifts | None:
    """The reads of a call in which all pixels sample alike, corners that several samples share taken together.

    None for any other call; for numbers that are not finite; and where the operator's usual way is the faster one: for
    many channels that share positions, which it reads side by side, and for images so small that finding the reads
    takes longer than reading.
    """
    channels = input.shape[1]
    depthwise = window.groups == channels == weight.shape[0]
    alike = rule_of(sampling).is_given and field.shape[0] == 1 and tuple(field.shape[-2:]) == (1, 1)
    by_row = channels == 1 or not is_channels_last(input)
    if not (depthwise and alike and by_row and mask is None and window.stride == (1, 1)):
        return None
    side_by_side = field.shape[1] < channels and channels >= _MANY
    if side_by_side or input.shape[0] * window.size[0] * window.size[1] < _LEAST_PIXELS:
        return None
    positions = _positions(field, sampling, window)
    if not bool(positions.isfinite().all() and weight.isfinite().all()):
        return None
    at, share = _corners(positions, input, window)
    groups = at.shape[0]
    weights = weight.flatten(1).unflatten(0, (groups, -1))
    at, share = (t.repeat_interleave(channels // groups, 0) for t in (at, share))
    every = share * weights.flatten(0, 1)[..., None].to(share)
    return _merged(at, every, share != 0, input, window)


def _positions(field: Tensor, sampling: str, window: Window) -> Tensor:
    """``(G, K, 2)``, (y, x) from the output's pixel."""
    positions = field[0, :, :, :, 0, 0].expand(-1, window.cells, -1)
    if sampling == "offset":
        positions = positions + grid_offsets(window.kernel_size, window.dilation).to(positions).flip(-1)
    middle = [
        dilation * (kernel - 1) / 2 - before
        for dilation, kernel, (before, _) in zip(window.dilation, window.kernel_size, window.pads, strict=True)
    ]
    return positions + positions.new_tensor(middle)


def _corners(positions: Tensor, input: Tensor, window: Window) -> tuple[Tensor, Tensor]:
    """The four pixels of every sample, ``(G, K, 4, 2)`` int64, and their shares ``(G, K, 4)``."""
    # What lies further out than every pixel of the output reads zero alike.
    far = positions.new_tensor([max(pair) + 2 for pair in zip(input.shape[2:], window.size, strict=True)])
    positions = positions.minimum(far).maximum(-far)
    low = positions.floor()
    fraction = (positions - low)[..., None, :]
    corner = positions.new_tensor([[0, 0], [0, 1], [1, 0], [1, 1]])
    share = (corner * fraction + (1 - corner) * (1 - fraction)).prod(-1)
    return (low[..., None, :] + corner).long(), share


def _merged(at: Tensor, weights: Tensor, counts: Tensor, input: Tensor, window: Window) -> Shifts:
    """Of the corners ``(C, K, 4)`` those that count and lie within the image of some pixel; equal ones added."""
    channels, (height, width) = len(at), input.shape[2:]
    rows, columns = at.unbind(-1)
    below, right = window.size
    seen = counts & (rows < height) & (rows + below > 0) & (columns < width) & (columns + right > 0)
    channel = torch.arange(channels).view(-1, 1, 1)
    down, across = height + below, width + right
    key, place = ((channel * down + rows + below) * across + columns + right)[seen].unique(return_inverse=True)
    total = weights.new_zeros(len(key)).index_add_(0, place, weights[seen])
    first = torch.searchsorted(key, torch.arange(channels + 1) * (down * across))
    return Shifts(first, key // across % down - below, key % across - right, total.to(input.dtype))
