"""Build the replacements and swap them on the original module object."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from metric_zoo.converters.conv_types import behaviour
from metric_zoo.converters.merges import guard_merges
from metric_zoo.converters.original import inherit
from metric_zoo.errors import ConversionError, MetricZooError
from metric_zoo.nn.base import SampledConv2d
from metric_zoo.nn.registry import get_kind

INITS = ("pretrained", "uniform", "fit")


def build_layer(name: str, conv: nn.Conv2d, kind: str, options: Mapping[str, Any]) -> SampledConv2d:
    """The layer that replaces ``conv``: the same parameter objects, device, dtype, mode and hooks, and a fresh rule.

    Nothing of ``conv`` is changed.

    Args:
        name: the convolution's, for messages.
        options: of the kind.

    Raises:
        ConversionError: if the options do not fit this convolution.
    """
    found = behaviour(conv)
    try:
        # Built without storage: only the head's is allocated, the kernel is the one that is there.
        layer = get_kind(kind).layer(
            conv.in_channels,
            conv.out_channels,
            conv.kernel_size,
            stride=conv.stride,
            padding=found.padding,
            dilation=conv.dilation,
            groups=conv.groups,
            bias=conv.bias is not None,
            padding_mode=conv.padding_mode,
            device="meta",
            dtype=conv.weight.dtype,
            **options,
        )
    except MetricZooError as error:
        raise ConversionError(f"{name}: {error}") from None
    for key, value in layer._parameters.items():
        if key not in conv._parameters and value is not None:  # a rule's own table (active convolution)
            layer._parameters[key] = nn.Parameter(torch.empty_like(value, device=conv.weight.device))
    for key, value in conv._parameters.items():
        layer.register_parameter(key, value)
    layer.standardization = found.standardization
    if layer.sampler is not None:
        layer.sampler.to_empty(device=conv.weight.device)
    layer.reset_rule()
    inherit(layer, conv)
    return layer


def check_may_start_uniform(name: str, layer: SampledConv2d) -> None:
    """Raise where constant kernels would leave nothing.

    Raises:
        ConversionError: for a weight-standardised convolution, whose constant kernel becomes zero.
    """
    if layer.standardization is not None:
        raise ConversionError(
            f"{name}: init='uniform' makes constant kernels, which weight standardisation turns into zeros; "
            "use init='pretrained'"
        )


def check_lossless(name: str, layer: SampledConv2d) -> None:
    """Raise unless a fresh layer computes the original function.

    Raises:
        ConversionError: saying which options would.
    """
    if not layer.weight.is_meta and not layer.is_identity():
        raise ConversionError(
            f"{name}: {layer.kind} with {layer.config} does not start as the original convolution; "
            "use init='uniform' (the paper's start) or other options (for metric: sampling='grid')"
        )


def swap(model: nn.Module, replacements: Mapping[nn.Module, nn.Module]) -> None:
    """Put each replacement wherever its original hangs, shared places included."""
    for module in list(model.modules()):
        for name, child in list(module._modules.items()):
            if child in replacements:
                module._modules[name] = replacements[child]
    guard_merges(model)
