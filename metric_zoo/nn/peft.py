"""PEFT on sampled layers: adapters change the kernel, and the positions stay those of the layer.

PEFT runs an adapter as a convolution of its own beside the layer's, on the ordinary grid (LoHa, LoKr) or with a
sampling rule of its own (LoRA); what `merge_and_unload` then adds to the kernel is another function. Here the layer
runs once, with the kernel that a merge would give it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, cast

import torch
from peft.tuners import adalora, loha, lokr, lora
from peft.tuners.ln_tuning.layer import LNTuningLayer
from torch import Tensor, nn
from torch.func import functional_call

from metric_zoo.errors import ConversionError
from metric_zoo.nn.base import SampledConv2d
from metric_zoo.nn.head import WindowConv2d
from metric_zoo.ops.padding import sizes_of

if TYPE_CHECKING:
    from typing import Any as _Adapter  # one of PEFT's, which the classes below are mixed into
else:
    _Adapter = object


class KernelFactor(nn.Conv2d):
    """A factor of LoRA's change of a kernel; it is read, and never convolved with."""

    def forward(self, input: Tensor) -> Tensor:
        """Refuse: on the ordinary grid this is not what the layer computes."""
        raise ConversionError("a LoRA factor of a sampled layer is part of its kernel and cannot be called by itself")


class _AdaptsKernel(_Adapter):
    """Mixed into an adapter class of PEFT: its forward is the base layer's, with the adapted kernel."""

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """As the base layer; ``adapter_names``, one adapter for each image, is refused."""
        if self.disable_adapters or self.merged:
            return super().forward(x, *args, **kwargs)
        if kwargs.pop("adapter_names", None) is not None:
            raise ConversionError("adapter_names: a sampled layer has one kernel for the whole batch")
        layer = self.get_base_layer()
        if layer.weight.is_meta and not x.is_meta:
            raise ConversionError("the adapted layer's kernel is offloaded: merge the adapter, then offload the model")
        kernel = layer.weight
        for delta in self._deltas():
            kernel = kernel + delta.to(kernel.dtype)
        return functional_call(layer, {"weight": kernel}, (x, *args), kwargs)

    def _deltas(self) -> Iterator[Tensor]:
        """What each active adapter adds to the kernel, ``(out_channels, in_channels / groups, kh, kw)``."""
        raise NotImplementedError


class _LikeLora(_AdaptsKernel):
    def update_layer(self, adapter_name: str, *args: Any, **kwargs: Any) -> None:
        """Make an adapter's parameters; refuse what has no kernel.

        Raises:
            ConversionError: for a dropout.
        """
        super().update_layer(adapter_name, *args, **kwargs)
        if not isinstance(self.lora_dropout[adapter_name], nn.Identity):
            raise ConversionError("lora_dropout drops inputs of the adapter alone, which no kernel does: set it to 0")

    def _deltas(self) -> Iterator[Tensor]:
        return (self.get_delta_weight(name) for name in self.active_adapters if name in self.lora_A)


class KernelLora(_LikeLora, lora.Conv2d):
    """LoRA and rsLoRA."""

    _plain: nn.Conv2d | None = None

    def get_base_layer(self) -> nn.Module:
        """The layer; while factors are built a plain convolution with its kernel: PEFT builds them with the layer's own
        class, and not every kind can have a kernel of one cell."""
        return super().get_base_layer() if self._plain is None else self._plain

    def update_layer(self, adapter_name: str, *args: Any, **kwargs: Any) -> None:
        """Make an adapter's factors, as ordinary convolutions.

        Raises:
            ConversionError: for a grouped layer, and for options whose merge is another function.
        """
        if cast("nn.Conv2d", self.get_base_layer()).groups > 1:
            raise ConversionError(
                "PEFT cannot merge LoRA into a grouped convolution: use LoHa or LoKr, or leave it out"
            )
        object.__setattr__(self, "_plain", _plain_view(cast("nn.Conv2d", self.get_base_layer())))
        try:
            super().update_layer(adapter_name, *args, **kwargs)
        finally:
            del self._plain
        if adapter_name in self.lora_variant or self.lora_bias[adapter_name]:
            raise ConversionError("a sampled layer takes plain LoRA (use_rslora, too): not use_dora, not lora_bias")
        for factors in (self.lora_A, self.lora_B):
            factors[adapter_name] = _factor(cast("nn.Conv2d", factors.pop(adapter_name)))


def _plain_view(layer: nn.Conv2d) -> nn.Conv2d:
    """An ordinary convolution with the same parameters."""
    kernel_size, stride, dilation = sizes_of(layer)
    sizes = (layer.in_channels, layer.out_channels, kernel_size, stride, 0, dilation, layer.groups)
    plain = nn.Conv2d(*sizes, bias=layer.bias is not None, device="meta")
    plain.weight, plain.bias = layer.weight, layer.bias
    return plain


def _factor(built: nn.Conv2d) -> KernelFactor:
    """The same weight."""
    kernel_size, _, _ = sizes_of(built)
    factor = KernelFactor(built.in_channels, built.out_channels, kernel_size, bias=False, device="meta")
    factor.weight = built.weight
    return factor


class _LikeLycoris(_AdaptsKernel):
    def _deltas(self) -> Iterator[Tensor]:
        for name in self.active_adapters:
            if name in self._available_adapters and not self._is_dropped(name):
                drops = self.training and self.rank_dropout[name]
                yield self.get_delta_weight(name, **({"apply_rank_dropout": True} if drops else {}))

    def _is_dropped(self, name: str) -> bool:
        return self.training and bool(torch.rand(1) <= self.module_dropout[name])


class KernelLoHa(_LikeLycoris, loha.Conv2d):
    """LoHa."""


class KernelLoKr(_LikeLycoris, lokr.Conv2d):
    """LoKr."""


_OURS = {lora.Conv2d: KernelLora, loha.Conv2d: KernelLoHa, lokr.Conv2d: KernelLoKr}

if hasattr(adalora, "SVDConv2d"):  # in newer versions of PEFT alone

    class KernelAdaLora(_LikeLora, adalora.SVDConv2d):
        """AdaLoRA."""

    _OURS[adalora.SVDConv2d] = KernelAdaLora

_RIGHT = {*_OURS.values(), LNTuningLayer}
"""The last one trains a copy of the whole layer."""


def settle(adapter: nn.Module, base: SampledConv2d | WindowConv2d, wrapped: bool) -> None:
    """Make an adapter that has just been given its base layer, and no parameters yet, one that adapts the kernel.

    Args:
        adapter: of PEFT.
        base: the layer within.
        wrapped: whether another adapter lies between.

    Raises:
        ConversionError: for a method that is not known to be right, and for what predicts the sampling.
    """
    cls = type(adapter)
    if cls in _RIGHT:
        return
    if isinstance(base, WindowConv2d):
        raise ConversionError(
            "PEFT cannot adapt what predicts the sampling: leave 'sampler' out by exclude_modules, or train it whole, "
            "modules_to_save=['sampler']"
        )
    if cls not in _OURS or wrapped:
        raise ConversionError(
            f"{cls.__module__}.{cls.__name__} on a {type(base).__name__} would compute another function: use LoRA, "
            "LoHa, LoKr or AdaLoRA, one at a time, or leave the layer out by exclude_modules"
        )
    adapter.__class__ = _OURS[cls]
