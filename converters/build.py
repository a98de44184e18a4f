"""Build the replacements and swap them on the original module object."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from metric_zoo.converters.conv_types import behaviour
from metric_zoo.converters.merges import guard_merges
from metric_zoo.converters.original import inherit
from metric_zoo.errors import ConversionError, MetricZooError
from metric_zoo.nn.base import SampledConv2d
from metric_zoo.nn.registry import get_kind

INITS = ("pretrained", "uniform", "fit")


def build_layer(name: str, conv: nn.Conv2d, kind: str, options: Mapping[str, Any]) -> nn.Module:
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
        layer = get_kind(kind).build(conv, found.padding, options)
    except MetricZooError as error:
        raise ConversionError(f"{name}: {error}") from None
    if found.standardization is not None:
        layer.standardization = found.standardization
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
