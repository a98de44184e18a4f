"""Who adapts or replaces a sampled layer is met here: torch tells of every child that a module is given."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_module_registration_hook

from metric_zoo.errors import ConversionError
from metric_zoo.nn.base import SampledConv2d
from metric_zoo.nn.head import WindowConv2d

_PARALLEL = 1e-3
"""Of two kernels, relative to their norms: half types and folded norms move a kernel by less."""


def _meet(parent: nn.Module, name: str, child: nn.Module | None) -> None:
    if name == "base_layer" and type(parent).__module__.startswith("peft."):
        _meet_adapter(parent, child)
    former = parent._modules[name] if name in parent._modules else None  # noqa: SIM401, TorchScript's has no `get`
    if isinstance(former, SampledConv2d) and former is not child and child is not None:
        _meet_replacement(parent, name, former, child)


def _meet_adapter(adapter: nn.Module, base: nn.Module | None) -> None:
    """Let an adapter of PEFT adapt the kernel alone, or refuse it, before it makes any parameter."""
    layer = cast("Any", base)  # an adapter, which has what is asked of it, or what it adapts
    while hasattr(layer, "base_layer"):
        layer = layer.base_layer
    if isinstance(layer, (SampledConv2d, WindowConv2d)):
        from metric_zoo.nn.peft import settle  # its adapter is there, so PEFT is

        settle(adapter, layer, wrapped=layer is not base)


def _meet_replacement(parent: nn.Module, name: str, former: SampledConv2d, child: nn.Module) -> None:
    """Refuse a module that takes over a layer's kernel (fused with its norm, in another format), not its sampling."""
    there = not former.weight.is_meta and not hasattr(former.weight, "placements")  # a shard alone cannot tell
    if not there or any(isinstance(module, SampledConv2d) for module in child.modules()):
        return
    taken = any(_is_kernel_of(getattr(module, "weight", None), former.weight) for module in child.modules())
    if taken and not former.is_identity():
        raise ConversionError(
            f"{type(parent).__name__}.{name}: {type(child).__name__} takes the kernel of a {type(former).__name__} and "
            "drops its trained sampling: leave the layer out, or call its reset_rule() first if that is meant"
        )


@torch.no_grad()
def _is_kernel_of(weight: object, kernel: Tensor) -> bool:
    """Whether ``weight`` is ``kernel`` but for a factor for every output channel."""
    if not isinstance(weight, Tensor) or weight.shape != kernel.shape or weight.is_meta:
        return False
    a, b = (t.to_dense().to(kernel.device, torch.float32).flatten(1) for t in (weight, kernel))
    if a.shape[1] == 1:  # two numbers are always parallel
        return torch.equal(a, b)
    parallel = (a * b).sum(1).abs() >= (1 - _PARALLEL) * a.norm(dim=1) * b.norm(dim=1)
    return bool(parallel.all()) and bool(a.any())


register_module_module_registration_hook(_meet)
