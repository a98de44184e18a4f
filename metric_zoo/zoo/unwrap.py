"""What training has put around a model, taken off for the file: names, classes and tensors of the model itself."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeGuard

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedTensorMixin  # pyright: ignore[reportAttributeAccessIssue]  (not in its stub)
from torch.nn.utils import parametrize

from metric_zoo.errors import ConversionError
from metric_zoo.nn.kind import kind_of

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor

# By name: importing what defines them, to ask, would cost more than the file.
_INNER = {
    "DataParallel": "module",
    "DistributedDataParallel": "module",
    "OptimizedModule": "_orig_mod",
    "AveragedModel": "module",
    "ModelEma": "ema",
    "ModelEmaV2": "module",
    "ModelEmaV3": "module",
    "CheckpointWrapper": "_checkpoint_wrapped_module",
}
_REFUSED = {
    "FullyShardedDataParallel": "wrapped in FullyShardedDataParallel, which hides the parameters: gather its state "
    "dict (get_model_state_dict with full_state_dict=True), load that into the converted model itself, and save it",
    "ScriptModule": "a TorchScript module: save the Python model",
}
_COMPUTED = {
    "WeightNorm": "torch.nn.utils.remove_weight_norm",
    "SpectralNorm": "torch.nn.utils.remove_spectral_norm",
    "BasePruningMethod": "torch.nn.utils.prune.remove",
}
_PLAIN = (Tensor, nn.Parameter, nn.Buffer)


@dataclass
class Bare:
    """A model without wrappers.

    Attributes:
        root: the model itself.
        modules: its modules by name, shared ones once, as `nn.Module.named_modules` of the model itself.
        state: its state dict; sharded tensors are not gathered.
        wrapped: whether there was a wrapper, around the model or inside it.
    """

    root: nn.Module
    modules: dict[str, nn.Module]
    state: dict[str, Tensor]
    wrapped: bool


def unwrap(model: Any) -> Bare:
    """The model, if a folder can hold it.

    Raises:
        ConversionError: for what is no module, or holds what a file of plain tensors cannot, or what is not rebuilt.
    """
    bare = strip(model)
    _check_modules(bare.modules)
    _check_state(bare.state, bare.modules)
    return bare


def strip(model: Any) -> Bare:
    """Take off what computes nothing of its own: data parallelism, compilation, averaging, checkpointing.

    Raises:
        ConversionError: for what is no module.
    """
    inner: dict[str, str] = {}
    root = _inner(model)
    if not isinstance(root, nn.Module):
        raise ConversionError(f"model is a {type(root).__name__}, expected an nn.Module")
    raw = model if isinstance(model, nn.Module) else root
    modules = dict(_named(raw, "", "", inner, set()))
    # What a wrapper has of its own (the number of models in an average) is left out.
    own = {key: value for key, value in raw.state_dict().items() if key.rpartition(".")[0] not in inner}
    state = {_clean(key, inner): value for key, value in own.items()}
    return Bare(root, modules, state, wrapped=bool(inner))


def class_of(module: nn.Module) -> type:
    """The module's class; of one that `fully_shard` has changed, the class it had."""
    cls = type(module)
    return cls.__bases__[1] if cls.__bases__[0].__name__ == "FSDPModule" else cls


def _names(module: Any) -> set[str]:
    return {cls.__name__ for cls in type(module).__mro__ if cls.__module__.startswith(("torch.", "timm."))}


def _inner(module: Any) -> Any:
    """What is inside all wrappers around ``module``."""
    while found := _names(module) & _INNER.keys():
        module = getattr(module, _INNER[found.pop()])
    return module


def _named(
    module: nn.Module, raw: str, clean: str, inner: dict[str, str], seen: set[nn.Module]
) -> Iterator[tuple[str, nn.Module]]:
    """Names without wrappers; ``inner`` receives the path of each wrapper, with the attribute that is left out."""
    while found := _names(module) & _INNER.keys():
        inner[raw] = _INNER[found.pop()]
        module, raw = getattr(module, inner[raw]), f"{raw}.{inner[raw]}".lstrip(".")
    if module in seen:
        return
    seen.add(module)
    yield clean, module
    for name, child in module._modules.items():
        if child is not None:
            yield from _named(child, f"{raw}.{name}".lstrip("."), f"{clean}.{name}".lstrip("."), inner, seen)


def _clean(key: str, inner: dict[str, str]) -> str:
    """A state dict's key without the wrappers' attributes."""
    raw, kept = "", []
    for part in key.split("."):
        if inner.get(raw) != part:
            kept.append(part)
        raw = f"{raw}.{part}".lstrip(".")
    return ".".join(kept)


def _check_modules(modules: dict[str, nn.Module]) -> None:
    for name, module in modules.items():
        why = next((_REFUSED[found] for found in _names(module) & _REFUSED.keys()), "")
        package = next((cls.__module__ for cls in type(module).__mro__ if cls.__module__.startswith("peft.")), "")
        if package:
            why = "an adapter of PEFT: merge it, model.merge_and_unload(), and save what that returns"
        elif ".quantized." in f"{type(module).__module__}." and "FloatFunctional" not in type(module).__name__:
            why = "quantized: save the float model, and quantize after mz.load"
        if why:
            raise ConversionError(f"{name or 'the model'} is {why}")
        if kind_of(module) is not None:
            _check_layer(name, module)


def _check_layer(name: str, layer: nn.Module) -> None:
    """`load` builds converted layers afresh, with parameters: what computes them would find no place.

    Raises:
        ConversionError: with the way back to a plain parameter.
    """
    for path, module in layer.named_modules(prefix=name):
        computed = [key for key in ("weight", "bias") if getattr(module, key, None) is not None]
        computed = [key for key in computed if key not in module._parameters]
        if computed:
            raise ConversionError(
                f"the {computed[0]} of {path} is computed, which mz.load does not rebuild: make it a parameter, "
                f"{_way_out(module, computed[0])}, and save again"
            )


def _way_out(module: nn.Module, key: str) -> str:
    if parametrize.is_parametrized(module, key):
        return f"torch.nn.utils.parametrize.remove_parametrizations(layer, {key!r})"
    hooks = (cls.__name__ for hook in module._forward_pre_hooks.values() for cls in type(hook).__mro__)
    return f"{next((_COMPUTED[cls] for cls in hooks if cls in _COMPUTED), 'layer.register_parameter')}(layer, {key!r})"


def _check_state(state: dict[str, Any], modules: dict[str, nn.Module]) -> None:
    """Raise unless everything is a tensor with values of its own, whole or in shards.

    Raises:
        ConversionError: naming the first that is not.
    """
    for key, value in state.items():
        why = _why_unwritable(value)
        if why and isinstance(value, Tensor) and any(hasattr(module, "_hf_hook") for module in modules.values()):
            why = "is offloaded by accelerate: accelerate.hooks.remove_hook_from_submodules(model) brings it back"
        if why:
            raise ConversionError(f"{key} {why}")


def _why_unwritable(value: Any) -> str:
    if isinstance(value, UninitializedTensorMixin):
        return "has no values yet: run the model once, then save it"
    if is_sharded(value):
        return ""
    if not isinstance(value, _PLAIN) or type(value) not in _PLAIN:
        return f"is a {type(value).__name__}, which a file of plain tensors does not hold"
    if value.is_meta:
        return "is on the meta device and has no values"
    if value.is_quantized or value.layout != torch.strided:
        return "is quantized or sparse, which a file of plain tensors does not hold"
    return ""


def is_sharded(value: Any) -> TypeGuard[DTensor]:
    """Whether each process has a part of a tensor."""
    return isinstance(value, Tensor) and type(value).__name__ == "DTensor"
