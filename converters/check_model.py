"""What `convert` does not accept as a model, and what to do instead."""

from __future__ import annotations

import sys
from typing import Any, cast

from torch import nn
from torch.nn.modules.lazy import LazyModuleMixin

from metric_zoo.errors import ConversionError

_WRAPPERS = {"DistributedDataParallel", "FullyShardedDataParallel", "FSDPModule"}


def check_model(model: Any) -> None:
    """Raise unless ``model`` is a module whose convolutions can be swapped where they hang.

    Raises:
        ConversionError: for something that is no module, a lone convolution, a model that is wrapped (its wrapper has
            recorded the parameters it had), scripted or not initialised yet.
    """
    check_not_scripted()
    if not isinstance(model, nn.Module):
        raise ConversionError(f"model is a {type(model).__name__}, expected an nn.Module")
    if isinstance(model, nn.Conv2d):
        raise ConversionError("the model is itself a convolution, and cannot be swapped inside itself: use mz.nn")
    absent = [name for name, parameter in model.named_parameters() if parameter.is_meta]
    if absent and len(absent) < sum(1 for _ in model.parameters()):
        raise ConversionError(
            f"{len(absent)} parameters, {absent[0]!r} the first, are on the meta device and others are not: "
            "load or move the whole model first"
        )
    for name, module in model.named_modules():
        reason = _reason(module)
        if reason:
            raise ConversionError(f"{name or 'the model'} is {reason}")


def check_adoptable(model: Any) -> None:
    """Raise unless ``model`` is a module whose layers can change their classes. Inside it, what is scripted may stay.

    Raises:
        ConversionError: for something that is no module, or is wrapped, compiled or scripted.
    """
    if not isinstance(model, nn.Module):
        raise ConversionError(f"model is a {type(model).__name__}, expected an nn.Module")
    if "ScriptModule" in _torchs_classes(model):
        raise ConversionError("the model is a TorchScript module: adopt the Python model, then trace it")
    for name, module in model.named_modules():
        wrapper = next(iter(_torchs_classes(module) & {*_WRAPPERS, "OptimizedModule"}), None)
        if wrapper:
            raise ConversionError(
                f"{name or 'the model'} is wrapped in {wrapper}: adopt the model inside, then wrap it"
            )


def check_not_scripted(scriptable: bool | None = None) -> None:
    """Raise where a model is to be built for TorchScript, which cannot compile converted layers.

    Args:
        scriptable: timm's option; None is what `timm.layers.set_scriptable` says, if timm is there.

    Raises:
        ConversionError: with what can be done instead.
    """
    layers = sys.modules.get("timm.layers")
    if scriptable or (scriptable is None and layers is not None and layers.is_scriptable()):
        raise ConversionError(
            "scriptable=True: torch.jit.script cannot compile converted layers; use torch.jit.trace, torch.export or "
            "torch.compile, and leave scriptable out"
        )


def check_not_sharded(model: nn.Module) -> None:
    """Raise for a model whose parameters `torch.distributed.fsdp.fully_shard` puts into the layers that it has seen.

    Raises:
        ConversionError: saying what to do instead.
    """
    if any("FSDPModule" in (cls.__name__ for cls in type(module).__mro__) for module in model.modules()):
        raise ConversionError("a model that fully_shard has sharded cannot be reverted: revert it, then shard it")


def _reason(module: nn.Module) -> str:
    names = _torchs_classes(module)
    wrapper = next(iter(names & _WRAPPERS), None)
    if wrapper:
        return f"wrapped in {wrapper}, which would not see the heads: convert the model, then wrap it"
    if "ScriptModule" in names:
        return "a TorchScript module: convert the Python model, then script it"
    if "OptimizedModule" in names:
        return "compiled: convert model._orig_mod, then torch.compile the result"
    if _is_adapter(module) and any(isinstance(inner, nn.Conv2d) for inner in module.modules()):
        return "an adapted convolution of PEFT: convert first, then adapt; or merge_and_unload() first, then convert"
    if isinstance(module, LazyModuleMixin) and cast(Any, module).has_uninitialized_params():
        return "lazy, its weights do not exist yet: run the model once, then convert it"
    return ""


def _torchs_classes(module: nn.Module) -> set[str]:
    # By name: importing torch._dynamo or torch.distributed.fsdp to ask would cost more than the conversion.
    return {cls.__name__ for cls in type(module).__mro__ if cls.__module__.startswith("torch.")}


def _is_adapter(module: nn.Module) -> bool:
    return any(c.__name__ == "BaseTunerLayer" and c.__module__.startswith("peft.") for c in type(module).__mro__)
