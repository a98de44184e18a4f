"""What a converted layer remembers of the convolution that it replaced: its class and construction, not its tensors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

from torch import nn

from metric_zoo.converters.converted import as_converted
from metric_zoo.errors import ConversionError
from metric_zoo.nn.kind import kind_of

NAME = "_metric_zoo_name"
"""The attribute by which a converted layer knows what the report calls it."""
_ATTRIBUTE = "_origin"
_STATE = ("_parameters", "_buffers", "_modules")
_BOUND = ("forward", "_old_forward", "_compiled_call_impl")
"""What is bound to the very module it hangs on (accelerate's hooks, `torch.nn.Module.compile`) and goes to no other."""


@dataclass(frozen=True)
class Original:
    """Attributes:
    cls: the convolution's class.
    construction: attributes that it was built with and the layer has, too, perhaps with other values (padding).
    own: names of the layer's own attributes and children; whatever else hangs on it goes back with it.
    parameters: names of the convolution's, in order, each with the tensor where the layer has none of that name: the
        kernel that it approximates. None where the layer has it, which is then the only copy.
    """

    cls: type[nn.Conv2d]
    construction: dict[str, Any]
    own: frozenset[str]
    parameters: dict[str, nn.Parameter | None]


def is_hooks(attribute: str) -> bool:
    """Whether a module keeps hooks, or flags that belong to them, under this name."""
    return attribute.startswith("_") and "hook" in attribute


def inherit(layer: nn.Module, conv: nn.Conv2d) -> None:
    """Give ``layer`` the mode, the buffers, the hooks, the children and all other attributes of what it replaces."""
    own = frozenset({*vars(layer), *layer._modules, _ATTRIBUTE, NAME, "parametrizations"})
    layer.train(conv.training)
    layer._buffers, layer._non_persistent_buffers_set = conv._buffers, conv._non_persistent_buffers_set
    layer._modules.update((name, child) for name, child in conv._modules.items() if name not in own)
    for attribute, value in vars(conv).items():
        # Every kind of hook with the flags that belong to it, and whatever a user has hung on the convolution.
        if is_hooks(attribute) or attribute not in {*own, *_BOUND}:
            setattr(layer, attribute, value)
    construction = {k: v for k, v in vars(conv).items() if k in own and k not in _STATE and not is_hooks(k)}
    kept = {name: None if name in layer._parameters else value for name, value in conv._parameters.items()}
    setattr(layer, _ATTRIBUTE, Original(type(conv), construction, own, kept))


def find_original(layer: nn.Module) -> Original | None:
    """What `inherit` has written down; None for a layer that no conversion made."""
    return getattr(layer, _ATTRIBUTE, None)


def remember_original(layer: nn.Module, original: Original | None) -> None:
    """Let ``layer`` come from where another layer came from."""
    setattr(layer, _ATTRIBUTE, original)


def forget_original(layer: nn.Module) -> None:
    """Of a layer that has not all of the convolution's parameters: without their values there is no way back."""
    original = find_original(layer)
    if original is not None and any(kept is not None for kept in original.parameters.values()):
        delattr(layer, _ATTRIBUTE)


def restore(layer: nn.Module) -> nn.Conv2d:
    """The convolution that ``layer`` came from, with the parameters, buffers, hooks and attributes of the layer now.

    Raises:
        ConversionError: if there is none, or the layer's weight is computed.
    """
    original = find_original(layer)
    if original is None:
        raise ConversionError("a layer that was not made by mz.convert has no original to revert to")
    absent = [name for name, kept in original.parameters.items() if kept is None and name not in layer._parameters]
    if absent:
        raise ConversionError("a layer whose weight is computed (weight norm or a parametrization) cannot be reverted")
    conv = original.cls.__new__(original.cls)
    nn.Module.__init__(conv)
    hung = {k: v for k, v in vars(layer).items() if is_hooks(k) or k not in {*original.own, *_BOUND}}
    vars(conv).update(original.construction | hung)
    conv._buffers, conv._non_persistent_buffers_set = layer._buffers, layer._non_persistent_buffers_set
    conv._modules.update((name, child) for name, child in layer._modules.items() if name not in original.own)
    for name, kept in original.parameters.items():
        conv._parameters[name] = layer._parameters[name] if kept is None else _moved(kept, layer)
    conv.training = layer.training
    return conv


def _moved(kept: nn.Parameter, layer: nn.Module) -> nn.Parameter:
    """The kernel, where and as what the model has been moved to since."""
    return nn.Parameter(kept.detach().to(next(layer.parameters())), kept.requires_grad)


def plain_view(layer: nn.Module) -> nn.Conv2d:
    """The convolution itself; of a converted layer what it is without its rule: the parameters that are not the rule's,
    padding, mode, hooks and whatever hangs on the layer."""
    kind, own = kind_of(layer), as_converted(layer)
    if kind is None:
        return cast(nn.Conv2d, layer)
    size = (own.in_channels, own.out_channels, own.kernel_size, own.stride)
    conv = nn.Conv2d(*size, dilation=own.dilation, groups=own.groups, padding_mode=own.padding_mode, device="meta")
    rule = {id(parameter) for parameter in kind.rule_parameters(layer)}
    for name, value in vars(layer).items():
        if name not in ("_parameters", "_modules", "config", "standardization", _ATTRIBUTE):
            setattr(conv, name, value)
    conv._parameters = {name: value for name, value in layer._parameters.items() if id(value) not in rule}
    return conv
