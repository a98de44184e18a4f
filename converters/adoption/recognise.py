"""Which modules are deformable layers of another library, what they compute, and what keeps them from being adopted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn

from metric_zoo.converters.adoption.calls import calls_of_mmcv, calls_torchvision
from metric_zoo.converters.adoption.mmcv import as_mmcv, why_not_mmcv
from metric_zoo.nn.adopted import Adopted, Compute, adopted_class
from metric_zoo.nn.kind import kind_of
from metric_zoo.nn.published import offset_and_mask_given
from metric_zoo.nn.substitution import substituted


@dataclass(frozen=True)
class Candidate:
    """A module that is to be adopted.

    Attributes:
        name: in the model.
        module: the module.
        compute: what its forward becomes.
    """

    name: str
    module: nn.Module
    compute: Compute

    @property
    def is_layer(self) -> bool:
        """Whether it can be run a second time on what it has seen: a layer changes nothing, other code may."""
        return self.compute is not substituted


def survey(model: nn.Module) -> tuple[list[Candidate], dict[str, str]]:
    """What can be adopted, and what is left alone: its name and why; what is adopted already is in neither."""
    adopted, left = [], {}
    scripted: tuple[str, ...] = ()
    for name, module in model.named_modules():
        if name.startswith(scripted):
            continue
        if isinstance(module, torch.jit.ScriptModule):
            scripted = (*scripted, f"{name}.")
        found = _recognised(module)
        if isinstance(found, str):
            left[name] = found
        elif found is not None:
            adopted.append(Candidate(name, module, found))
    return adopted, left


def _recognised(module: nn.Module) -> Compute | str | None:
    """What the module's forward becomes, why it stays what it is, or None where it is no deformable layer."""
    if isinstance(module, torch.jit.ScriptModule):
        return "a TorchScript module: adopt the Python model, then trace it" if _is_scripted_call(module) else None
    if isinstance(module, Adopted) or kind_of(module) is not None:
        return None
    found = _compute(module)
    return _why_not(module) if found is None else _obstacle(module, found) or found


def _why_not(module: nn.Module) -> str | None:
    """What keeps a deformable module from being understood; None for any other module."""
    called = calls_of_mmcv(module)
    calls = f"its forward calls mmcv's {called}, which nothing can take over: use mmcv's layer" if called else None
    return why_not_mmcv(module) or calls


def _compute(module: nn.Module) -> Compute | None:
    if type(module).forward is _torchvisions_forward(type(module)):
        return offset_and_mask_given
    found = as_mmcv(module)
    if found is not None:
        return found
    return substituted if calls_torchvision(module) else None


def _torchvisions_forward(cls: type) -> Any:
    # By name: torchvision need not be loaded to ask.
    published = (c for c in cls.__mro__ if f"{c.__module__}.{c.__name__}" == "torchvision.ops.deform_conv.DeformConv2d")
    return getattr(next(published, None), "forward", None)


def _is_scripted_call(module: Any) -> bool:
    try:
        return "torchvision::deform_conv2d" in str(module.inlined_graph)
    except (AttributeError, RuntimeError):  # it has no forward
        return False


def _obstacle(module: nn.Module, compute: Compute) -> str:
    """What keeps a module from changing its class, or the change from having an effect."""
    if "forward" in vars(module):
        return "its forward was replaced on this object (hooks of accelerate): remove that first"
    if hasattr(module, "parametrizations"):
        return "a parameter is parametrized, by a class of its own: adopt first, then parametrize"
    if isinstance(module, fx.GraphModule):
        return "a torch.fx.GraphModule, whose class is its code: adopt the model, then trace it"
    try:
        adopted_class(type(module), compute)
    except TypeError as error:
        return f"no class can be derived from {type(module).__name__}: {error}"
    return ""
