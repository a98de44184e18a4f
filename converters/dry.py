"""Running a model without arithmetic: shapes without storage."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import torch
from torch import Tensor, nn


def meta_copy(model: nn.Module) -> nn.Module:
    """A deep copy whose parameters and buffers have shapes but no storage."""
    memo: dict[int, Any] = {}
    for tensor in itertools.chain(model.parameters(), model.buffers()):
        empty = torch.empty_like(tensor, device="meta")
        memo[id(tensor)] = (
            nn.Parameter(empty, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else empty.detach()
        )
    return copy.deepcopy(model, memo)


def to_meta(inputs: Any) -> Any:
    """The same structure with meta tensors."""
    return torch.utils._pytree.tree_map(lambda v: v.to("meta") if isinstance(v, Tensor) else v, inputs)
