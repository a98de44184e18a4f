"""Blocks that merge their branches (RepVGG's, MobileOne's, a convolution with its norm): none drops trained sampling.

What merges reads kernels and builds an ordinary convolution from them. While every rule is the identity that is right;
once one has learned, there is no such convolution, and the block refuses.
"""

from __future__ import annotations

import inspect
import re
from functools import cache
from typing import Any

from torch import Tensor, nn

from metric_zoo.converters.converted import as_converted
from metric_zoo.errors import ConversionError
from metric_zoo.nn.kind import Promise, kind_of

_MERGES = re.compile(
    r"_?(fuse|(structural_)?re_?param|(\w+_)?deploy$|merge($|_(kernel|branch|bn|norm|conv|dilated))|fold($|_(bn|norm|conv))|"
    r"absorb($|_(bn|norm))|collapse|get_(\w+_)?(kernel_(and_)?bias|equivalent))"
)
"""Beginnings of names under which blocks of timm, RepVGG, RepLKNet, YOLO and others merge, or compute what would be."""


class GuardedMerge:
    """Stands for a block's own method, and calls it unless a sampling rule within the block has been trained."""

    def __init__(self, block: nn.Module, name: str) -> None:
        self._block, self._name = block, name

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """What the block's method returns.

        Raises:
            ConversionError: where that would drop what a rule has learned.
        """
        if any(isinstance(value, Tensor) for value in (*args, *kwargs.values())):  # a step of the forward pass
            return getattr(type(self._block), self._name)(self._block, *args, **kwargs)
        lost = [name for name, module in self._block.named_modules() if _loses_by_merging(module)]
        if lost:
            raise ConversionError(
                f"{type(self._block).__name__}.{self._name} would drop the trained sampling of {len(lost)} layers, "
                f"{lost[0]!r} the first: keep the branches, or merge the plain network before you convert it"
            )
        return getattr(type(self._block), self._name)(self._block, *args, **kwargs)


def guard_merges(model: nn.Module) -> None:
    """Guard every merging method of every module that holds converted layers, and free all others."""
    for module in model.modules():
        holds = any(kind_of(inner) is not None for inner in module.modules())
        for name in _merging_methods(type(module)):
            if isinstance(vars(module).get(name), GuardedMerge):
                del vars(module)[name]
            if holds and name not in vars(module):
                vars(module)[name] = GuardedMerge(module, name)


def _loses_by_merging(module: nn.Module) -> bool:
    """Whether a convolution with this layer's kernel computes something else, as far as is known."""
    kind = kind_of(module)
    if kind is None:
        return False
    layer = as_converted(module)
    return kind.promise is Promise.APPROXIMATION or layer.weight.is_meta or not layer.is_identity()


@cache
def _merging_methods(cls: type[nn.Module]) -> tuple[str, ...]:
    """Names of a class's methods that need no argument and are called like a merge; PEFT's are met elsewhere."""
    if cls.__module__.startswith(("torch.", "peft.")):
        return ()
    named = (name for name in dir(cls) if _MERGES.match(name))
    return tuple(name for name in named if _needs_nothing(inspect.getattr_static(cls, name)))


def _needs_nothing(method: Any) -> bool:
    if not inspect.isfunction(method):
        return False
    _, *others = inspect.signature(method).parameters.values()
    return all(p.default is not p.empty or p.kind is p.VAR_KEYWORD for p in others)
