"""The kinds that there are, for tests that run over all of them, and a layer of each."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields

import pytest
import torch
from torch import nn

from metric_zoo.nn import SampledConv2d
from metric_zoo.nn.kind import Promise
from metric_zoo.nn.registry import get_kind, list_layers

EVERY = tuple(list_layers())
"""But for the ordinary convolution."""
LOSSLESS = tuple(name for name in EVERY if get_kind(name).promise is Promise.FUNCTION)
SAMPLED = {name: get_kind(name).layer for name in EVERY if issubclass(get_kind(name).layer, SampledConv2d)}
"""The layers that are convolutions: they have a kernel, and take the arguments of `torch.nn.Conv2d`."""
LEARNED = tuple(name for name in SAMPLED if SAMPLED[name](2, 2, 3).rule_parameters())
"""Of those the ones whose sampling is learned."""
WITH_HEADS = tuple(name for name in SAMPLED if "head" in {field.name for field in fields(get_kind(name).config)})
"""Of those the ones whose sampling a head of some form predicts per pixel."""


def on_networks(kinds: Iterable[str]) -> list:
    """Parameters of tests of whole networks. Geodesics, integrated for every pixel, and kinds that find their field by
    the method of one before them, take part when there is time."""
    methods, parameters = set(), []
    for kind in kinds:
        method = getattr(get_kind(kind).layer, "_field", kind)
        late = kind == "geodesic" or method in methods
        parameters.append(pytest.param(kind, marks=pytest.mark.slow) if late else kind)
        methods.add(method)
    return parameters


def options_of(kind: str) -> set[str]:
    """The names of a kind's options."""
    return {field.name for field in fields(get_kind(kind).config)}


def takes_dense(kind: str) -> bool:
    """Whether a layer of this kind takes the place of any convolution, and not of large depthwise ones alone."""
    return not get_kind(kind).why_not(nn.Conv2d(4, 8, 3))


def stand_in(kind: str, channels: int = 4, out: int = 8, dtype=None, **options) -> nn.Module:
    """A fresh layer in the place of a 3x3 convolution that keeps the size, or of a depthwise 7x7 one."""
    conv = nn.Conv2d(channels, out, 3, padding=1, dtype=dtype)
    if not takes_dense(kind):
        conv = nn.Conv2d(channels, channels, 7, padding=3, groups=channels, dtype=dtype)
    return get_kind(kind).build(conv, conv.padding, options)


@torch.no_grad()
def disturb(layer: nn.Module, scale: float = 0.1) -> nn.Module:
    """Move every parameter, so that the sampling rule depends on the input."""
    for parameter in layer.parameters():
        parameter.add_(scale * torch.randn_like(parameter))
    return layer
