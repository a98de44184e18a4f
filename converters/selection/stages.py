"""Which stage of a network a convolution belongs to.

Stages are numbered as ResNet's layers are: stage s produces maps of 1 / 2^(s+1) of the image's size, so ``layer1`` is
stage 1 at a quarter and ``layer4`` is stage 4 at a thirty-second. A stem is in stage 0, or in stage 1 if it reduces to
a quarter at once.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, cast

from torch import nn
from torch.nn.modules.conv import _ConvNd

_LAYERS = {f"layer{stage}": stage for stage in (1, 2, 3, 4)}


def stages_of(model: nn.Module, reductions: Mapping[str, float]) -> dict[str, int]:
    """The stage of every convolution that has one.

    A ResNet's layers say it by name, also where the last ones are dilated. timm's ``feature_info`` tells where each
    stage of other models ends, if that agrees with the sizes of the maps (a few list where stages begin); else the
    sizes tell.

    Args:
        reductions: name of a convolution that is called -> image size / its output's size.
    """
    places = {name: place for place, (name, _) in enumerate(model.named_modules())}
    if all(name in places for name in _LAYERS):
        return _by_layers({name: places[name] for name in reductions}, places["layer1"])
    measured = {name: _stage(reduction) for name, reduction in reductions.items()}
    listed = _by_ends({name: places[name] for name in reductions}, _ends(places, _listed(model)))
    windows = [name for name in listed if max(cast(_ConvNd, model.get_submodule(name)).kernel_size) > 1]
    # A 1x1 convolution may run before its stage's stride.
    return listed if windows and all(listed[name] == measured[name] for name in windows) else measured


def _by_layers(places: Mapping[str, int], first: int) -> dict[str, int]:
    layers = {name: _LAYERS.get(name.partition(".")[0], 0 if place < first else None) for name, place in places.items()}
    return {name: stage for name, stage in layers.items() if stage is not None}


def _listed(model: nn.Module) -> list[tuple[str, int]]:
    """(module, stage) for each feature of ``feature_info``."""
    found = []
    for feature in _features(model):
        module, reduction = feature.get("module"), feature.get("reduction")
        if isinstance(module, str) and reduction:
            found.append((module, _stage(reduction)))
    return found


def _features(model: nn.Module) -> Iterable[Mapping[str, Any]]:
    info = getattr(model, "feature_info", None)
    # A backbone's FeatureInfo lists all features, also those that it does not return.
    described = getattr(info, "info", info)
    return described if isinstance(described, (list, tuple)) else ()


def _ends(places: Mapping[str, int], modules: Iterable[tuple[str, int]]) -> list[tuple[int, int]]:
    """(place of the last module inside, stage), in order."""
    last: dict[str, int] = {}
    for name, place in places.items():
        parts = name.split(".")
        last.update({".".join(parts[:depth]): place for depth in range(1, len(parts) + 1)})
    return sorted((last[name], stage) for name, stage in modules if name in last)


def _by_ends(places: Mapping[str, int], ends: list[tuple[int, int]]) -> dict[str, int]:
    found = {}
    for name, place in places.items():
        stage = next((stage for end, stage in ends if place <= end), None)
        if stage is not None:
            found[name] = stage
    return found


def _stage(reduction: float) -> int:
    return round(math.log2(max(reduction, 0.5))) - 1
