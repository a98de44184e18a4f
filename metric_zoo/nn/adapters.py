"""Who adapts a sampled layer from outside is met here: torch tells of every child that a module is given."""

from __future__ import annotations

from torch import nn
from torch.nn.modules.module import register_module_module_registration_hook

from metric_zoo.nn.base import SampledConv2d
from metric_zoo.nn.head import WindowConv2d


def _meet_adapter(adapter: nn.Module, name: str, base: nn.Module) -> None:
    """Let an adapter of PEFT adapt the kernel alone, or refuse it, before it makes any parameter."""
    if name != "base_layer" or not type(adapter).__module__.startswith("peft."):
        return
    layer = base
    while hasattr(layer, "base_layer"):
        layer = layer.base_layer
    if isinstance(layer, (SampledConv2d, WindowConv2d)):
        from metric_zoo.nn.peft import settle  # its adapter is there, so PEFT is

        settle(adapter, layer, wrapped=layer is not base)


register_module_module_registration_hook(_meet_adapter)
