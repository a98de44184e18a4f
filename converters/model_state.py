"""A model's state while it is taken apart: copies without storage, and what is remembered on it."""

from __future__ import annotations

import copy
import itertools
import threading
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree

from metric_zoo.errors import ConversionError

SHARED = threading.RLock()
"""Held where the process's state is changed for a while: random numbers, cuDNN's flags, filters of warnings, and what
`torch.fx` puts in the place of a module's call. Two such whiles that overlap would end with the wrong one's state."""

_PRESERVED = "_user_preserved_attributes"  # fx drops every attribute of a copied GraphModule that is not listed here


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
    leaves = _pytree.tree_leaves([[v for v in each.values() if _may_hold(v)] for each in attributes])
    return (leaf for leaf in leaves if isinstance(leaf, Tensor) and not leaf.is_leaf)


def _may_hold(value: Any) -> bool:
    return isinstance(value, (Tensor, dict, list, tuple))


def _empty(tensor: Tensor) -> Tensor:
    empty = torch.empty_like(tensor, device="meta")
    return nn.Parameter(empty, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else empty.detach()


def to_meta(inputs: Any) -> Any:
    """The same structure with meta tensors."""
    return _pytree.tree_map(lambda v: v.to("meta") if isinstance(v, Tensor) else v, inputs)


def is_meta(model: nn.Module) -> bool:
    """Whether parameters of a model have no values."""
    return any(parameter.is_meta for parameter in model.parameters())


def keep(model: nn.Module, name: str, value: Any) -> None:
    """Set an attribute that copies of the model keep, those of a GraphModule too."""
    setattr(model, name, value)
    if isinstance(model, fx.GraphModule):
        model.meta.setdefault(_PRESERVED, {})[name] = value


def drop(model: nn.Module, name: str) -> None:
    """Forget an attribute, if it is there."""
    if name in vars(model):
        delattr(model, name)
    if isinstance(model, fx.GraphModule):
        model.meta.get(_PRESERVED, {}).pop(name, None)
