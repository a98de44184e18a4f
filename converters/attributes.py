"""What the package remembers on a model itself."""

from __future__ import annotations

from typing import Any

from torch import fx, nn

_PRESERVED = "_user_preserved_attributes"  # fx drops every attribute of a copied GraphModule that is not listed here


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
