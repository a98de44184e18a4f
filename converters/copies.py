"""Copies of a model that cost no storage: for running it without arithmetic, and for taking it apart."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from metric_zoo.errors import ConversionError


def full_copy(model: nn.Module) -> nn.Module:
    """A deep copy, also of a model that keeps tensors with a history (caches of a training step)."""
    return _copy(model, {})


def meta_copy(model: nn.Module) -> nn.Module:
    """A deep copy whose parameters and buffers have shapes but no storage."""
    return _copy(model, {id(tensor): _empty(tensor) for tensor in _tensors(model)})


def shell_copy(model: nn.Module) -> nn.Module:
    """A deep copy of the modules that shares the parameters and buffers."""
    return _copy(model, {id(tensor): tensor for tensor in _tensors(model)})


def _copy(model: nn.Module, memo: dict[int, Any]) -> nn.Module:
    try:
        return copy.deepcopy(model, {**{id(t): t.detach().clone() for t in _with_history(model)}, **memo})
    except Exception as error:
        raise ConversionError(f"{type(model).__name__} cannot be copied: {error}") from error


def _tensors(model: nn.Module) -> Iterator[Tensor]:
    return itertools.chain(model.parameters(), model.buffers())


def _with_history(model: nn.Module) -> Iterator[Tensor]:
    """Tensors that modules keep as plain attributes and that autograd would not let be copied."""
    attributes = (vars(module) for module in model.modules())
    leaves = torch.utils._pytree.tree_leaves([[v for v in each.values() if _may_hold(v)] for each in attributes])
    return (leaf for leaf in leaves if isinstance(leaf, Tensor) and not leaf.is_leaf)


def _may_hold(value: Any) -> bool:
    return isinstance(value, (Tensor, dict, list, tuple))


def _empty(tensor: Tensor) -> Tensor:
    empty = torch.empty_like(tensor, device="meta")
    return nn.Parameter(empty, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else empty.detach()


def to_meta(inputs: Any) -> Any:
    """The same structure with meta tensors."""
    return torch.utils._pytree.tree_map(lambda v: v.to("meta") if isinstance(v, Tensor) else v, inputs)
