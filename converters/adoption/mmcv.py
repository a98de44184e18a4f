"""Layers of mmcv and of the programs that carry a copy of them, by their classes' names: mmcv need not be installed.

A name alone promises nothing (detectron2's ``DeformConv`` normalises and activates, others double the sigmoid), so the
code of ``forward`` must use what the published one uses, and no more.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from dis import get_instructions
from types import CodeType
from typing import Any

from torch import nn

from metric_zoo.nn.adopted import Compute
from metric_zoo.nn.published import modulated_pack, modulation_given, offset_given, offset_pack

_LAYER = frozenset(
    ["weight", "bias", "stride", "padding", "dilation", "groups", "deform_groups", "deformable_groups", "im2col_step"]
)
_OFFSET_FUNCTIONS = frozenset({"deform_conv2d", "deform_conv"})
_MODULATED_FUNCTIONS = frozenset({"modulated_deform_conv2d", "modulated_deform_conv"})
_SMALL_INPUTS = frozenset(["size", "kernel_size", "max", "F", "pad", "contiguous"])
"""With which mmcv pads inputs that are smaller than the kernel, and crops the output; zeros outside do the same."""


@dataclass(frozen=True)
class Published:
    """A published layer.

    Attributes:
        compute: what it computes.
        uses: names in the code of its ``forward``.
        numbers: there.
        predicted: numbers that ``conv_offset`` predicts for a cell; 0 without one.
    """

    compute: Compute
    uses: frozenset[str]
    numbers: frozenset[float] = frozenset()
    predicted: int = 0


_OFFSETS = Published(offset_given, _LAYER | _OFFSET_FUNCTIONS | _SMALL_INPUTS, frozenset({0, 1, 2, 3}))
_MODULATED = Published(modulation_given, _LAYER | _MODULATED_FUNCTIONS)
_PACK = Published(offset_pack, _LAYER | _OFFSET_FUNCTIONS | {"conv_offset"}, predicted=2)
_MODULATED_PACK = Published(
    modulated_pack,
    _LAYER | _MODULATED_FUNCTIONS | {"conv_offset", "torch", "chunk", "cat", "sigmoid"},
    frozenset({1, 3}),
    predicted=3,
)
# Today's names, then those before mmcv 1.0, which BasicSR, EDVR and others carry on.
PUBLISHED = {
    "DeformConv2d": _OFFSETS,
    "DeformConv2dPack": _PACK,
    "ModulatedDeformConv2d": _MODULATED,
    "ModulatedDeformConv2dPack": _MODULATED_PACK,
    "DeformConv": _OFFSETS,
    "DeformConvPack": _PACK,
    "ModulatedDeformConv": _MODULATED,
    "ModulatedDeformConvPack": _MODULATED_PACK,
}


def as_mmcv(module: nn.Module) -> Compute | None:
    """What a module computes; None where it is no layer of mmcv, or `why_not_mmcv` has a reason."""
    found = _published(module)
    return found[1].compute if found is not None and not why_not_mmcv(module) else None


def why_not_mmcv(module: nn.Module) -> str:
    """Why a module that has the name and the attributes of a layer of mmcv is not taken for one; empty for others."""
    found = _published(module)
    if found is None:
        return ""
    base, published = found
    forward = type(module).forward
    if forward is not base.forward:
        return f"{type(module).__name__} overrides the forward of {base.__name__}"
    return _unlike(forward, published, base.__name__) or _unfit(module, published)


def _published(module: Any) -> tuple[type[nn.Module], Published] | None:
    """The nearest class with a published name, of a module with a kernel and groups that sample apart."""
    if not hasattr(module, "weight") or not hasattr(module, "stride") or _deform_groups(module) is None:
        return None
    named = (cls for cls in type(module).__mro__ if cls.__name__ in PUBLISHED)
    cls = next(named, None)
    return None if cls is None else (cls, PUBLISHED[cls.__name__])


def _deform_groups(module: Any) -> int | None:
    """The second is the older name."""
    return getattr(module, "deform_groups", getattr(module, "deformable_groups", None))


def _unlike(forward: Any, published: Published, name: str) -> str:
    code = getattr(forward, "__code__", None)
    if not isinstance(code, CodeType) or hasattr(forward, "__wrapped__"):
        return f"the forward of this {name} is decorated, or no Python"
    foreign = sorted({*code.co_names, *code.co_freevars} - published.uses)
    foreign += [str(number) for number in sorted({*_numbers(code)} - published.numbers)]
    return f"the forward of this {name} uses {foreign[0]!r}, which mmcv's does not" if foreign else ""


def _numbers(code: CodeType) -> Iterator[float]:
    """Those that the code loads; not every version of Python has them all among its constants."""
    for step in get_instructions(code):
        number = isinstance(step.argval, (int, float)) and not isinstance(step.argval, bool)
        if number and ("CONST" in step.opname or "SMALL_INT" in step.opname):
            yield step.argval


def _unfit(module: Any, published: Published) -> str:
    groups = _deform_groups(module) or 0
    channels = module.weight.shape[1] * module.groups
    if groups < 1 or channels % groups:
        return f"{groups} deformable groups do not divide its {channels} channels"
    if not published.predicted:
        return ""
    wanted = published.predicted * groups * module.weight.shape[2:].numel()
    head = getattr(module, "conv_offset", None)
    found = getattr(head, "out_channels", None)
    return "" if found == wanted else f"its conv_offset predicts {found} channels, not {wanted}"
