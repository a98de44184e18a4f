"""Blocks that merge their branches (RepVGG's, MobileOne's, a convolution with its norm): none drops trained sampling.

What merges reads kernels and builds an ordinary convolution from them. While every rule is the identity that is right;
once one has learned, the block keeps its branches, and so its function.
"""

from __future__ import annotations

import inspect
import re
import warnings
from functools import cache
from typing import Any

from torch import nn

from metric_zoo.converters.original import CONVERTED
from metric_zoo.errors import ConversionError
from metric_zoo.nn.base import SampledConv2d

_MERGES = re.compile(r"_?(fuse|re_?param|(\w+_)?deploy$|structural_re_?param|merge|fold|absorb|collapse)")
"""Beginnings of names under which blocks of timm, RepVGG, RepLKNet, YOLO and others merge themselves."""
_COMPUTES = re.compile(r"_?get_(\w+_)?(kernel|equivalent)")
"""Beginnings of names under which they compute what the merged convolution would have."""


class GuardedMerge:
    """Stands for a block's own method, and calls it unless a sampling rule within the block has been trained."""

    def __init__(self, block: nn.Module, name: str) -> None:
        self._block, self._name = block, name

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """What the block's method returns; the block itself where it stays as it is."""
        block = self._block
        if not any(_loses_by_merging(module) for module in block.modules()):
            return getattr(type(block), self._name)(block, *args, **kwargs)
        owner = type(block).__name__
        if _COMPUTES.match(self._name):
            raise ConversionError(
                f"{owner}.{self._name}: trained sampling has no kernel that would do the same: "
                "merge the plain network before you convert it"
            )
        warnings.warn(
            f"{owner}.{self._name}: trained sampling cannot be merged into a kernel, the block keeps its branches; "
            "to merge them, do so before you convert",
            stacklevel=2,
        )
        return block


def guard_merges(model: nn.Module) -> None:
    """Guard every merging method of every module that holds converted layers, and free all others."""
    for module in model.modules():
        holds = any(isinstance(inner, CONVERTED) for inner in module.modules())
        for name in _merging_methods(type(module)):
            current = vars(module).get(name)
            if isinstance(current, GuardedMerge):
                del vars(module)[name]
            if holds and (current is None or isinstance(current, GuardedMerge)):
                vars(module)[name] = GuardedMerge(module, name)


def _loses_by_merging(module: nn.Module) -> bool:
    """Whether a convolution with this layer's kernel computes something else, as far as is known."""
    if isinstance(module, SampledConv2d):
        return module.weight.is_meta or not module.is_identity()
    return isinstance(module, CONVERTED)


@cache
def _merging_methods(cls: type[nn.Module]) -> tuple[str, ...]:
    """Names of a class's methods that need no argument and are called like a merge."""
    named = (name for name in dir(cls) if _MERGES.match(name) or _COMPUTES.match(name))
    return tuple(name for name in named if _needs_nothing(inspect.getattr_static(cls, name)))


def _needs_nothing(method: Any) -> bool:
    if not inspect.isfunction(method):
        return False
    _, *others = inspect.signature(method).parameters.values()
    return all(p.default is not p.empty or p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in others)
