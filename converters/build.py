"""Build the layer that takes a convolution's place, and swap it in on the original module object."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

from torch import nn

from metric_zoo.converters.conv_types import behaviour
from metric_zoo.converters.merges import guard_merges
from metric_zoo.converters.original import inherit
from metric_zoo.converters.replacement import Replacement
from metric_zoo.errors import ConversionError, MetricZooError
from metric_zoo.nn.base import SampledConv2d
from metric_zoo.nn.registry import get_kind


def build_layer(name: str, conv: nn.Conv2d, kind: str, options: Mapping[str, Any]) -> nn.Module:
    """The layer that replaces ``conv``: the same parameter objects, device, dtype, mode and hooks, and a fresh rule.

    Nothing of ``conv`` is changed.

    Args:
        name: the convolution's, for messages.
        options: of the kind's layer.

    Raises:
        ConversionError: if the options do not fit this convolution.
    """
    found = behaviour(conv)
    try:
        layer = get_kind(kind).build(conv, found.padding, options)
    except MetricZooError as error:
        raise ConversionError(f"{name}: {error}") from None
    if found.standardization is not None:
        cast(SampledConv2d, layer).standardization = found.standardization
    inherit(layer, conv)
    return layer


def swap(model: nn.Module, replacements: Mapping[nn.Module, nn.Module]) -> None:
    """Put each replacement wherever its original hangs, shared places included."""
    for module in list(model.modules()):
        for name, child in list(module._modules.items()):
            if child is not None and child in replacements:
                module._modules[name] = replacements[child]
    guard_merges(model)


@contextmanager
def swapped(model: nn.Module, replacements: Iterable[Replacement]) -> Iterator[None]:
    """Every layer in its convolution's place, for good unless the block fails."""
    pairs = {each.node.module: each.built for each in replacements}
    swap(model, pairs)
    try:
        yield
    except BaseException:
        swap(model, {layer: conv for conv, layer in pairs.items()})
        raise
