"""Positions need more digits than half precision has."""

from __future__ import annotations

import torch
from torch import Tensor


def at_least_float32(tensor: Tensor) -> Tensor:
    """Half types become float32; others pass. A bfloat16 column beyond 256 would be off by whole pixels."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor
