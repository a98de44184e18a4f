"""In which order the numbers of a tensor lie in memory."""

from __future__ import annotations

import torch
from torch import Tensor


def is_channels_last(tensor: Tensor) -> bool:
    """Whether a ``(B, C, H, W)`` tensor lies channel by channel at every pixel, and in no other order."""
    return tensor.is_contiguous(memory_format=torch.channels_last) and not tensor.is_contiguous()


def memory_format(tensor: Tensor) -> torch.memory_format:
    """The format an output gets for an input."""
    return torch.channels_last if is_channels_last(tensor) else torch.contiguous_format


def dense(tensor: Tensor) -> Tensor:
    """The tensor in one of the two formats; itself where it is."""
    return tensor if is_channels_last(tensor) else tensor.contiguous()


def shared_strides(field: Tensor) -> list[int]:
    """Strides of a field laid out contiguously, 0 along every size of 1: one value serves all."""
    strides, stride = [], 1
    for size in reversed(field.shape):
        strides.append(stride if size > 1 else 0)
        stride *= size
    return strides[::-1]
