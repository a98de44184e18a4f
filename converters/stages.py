"""Which stage of a network a convolution belongs to.

Stages are numbered as ResNet's layers are: stage s produces maps of 1 / 2^(s+1) of the image's size, so ``layer1`` is
stage 1 at a quarter and ``layer4`` is stage 4 at a thirty-second. What comes before is stage 0 and below.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from torch import nn


def stages_of(model: nn.Module, reductions: Mapping[str, float]) -> dict[str, int]:
    """The stage of every convolution that has one.

    timm's ``feature_info`` says where each stage ends; in other models the size of a convolution's output tells.

    Args:
        reductions: name of a convolution that is called -> image size / its output's size.
    """
    ends = _ends(model)
    if not ends:
        return {name: _stage(reduction) for name, reduction in reductions.items()}
    places = {name: place for place, (name, _) in enumerate(model.named_modules())}
    found = {}
    for name in reductions:
        stage = next((stage for place, stage in ends if places[name] <= place), None)
        if stage is not None:
            found[name] = stage
    return found


def _ends(model: nn.Module) -> list[tuple[int, int]]:
    """(place of its last module, stage) for each feature of ``feature_info``, in order; empty where that is unknown."""
    last: dict[str, int] = {}
    for place, (name, _) in enumerate(model.named_modules()):
        parts = name.split(".")
        last.update({".".join(parts[:depth]): place for depth in range(1, len(parts) + 1)})
    ends = []
    for feature in _features(model):
        module, reduction = feature.get("module"), feature.get("reduction")
        if module not in last or not reduction:
            return []
        ends.append((last[module], _stage(reduction)))
    return sorted(ends)


def _features(model: nn.Module) -> Iterable[Mapping[str, Any]]:
    info = getattr(model, "feature_info", None)
    described = info.get_dicts() if hasattr(info, "get_dicts") else info
    return described if isinstance(described, (list, tuple)) else ()


def _stage(reduction: float) -> int:
    return round(math.log2(max(reduction, 0.5))) - 1
