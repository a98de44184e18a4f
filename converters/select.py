"""Which convolutions to convert, and why not the others: one policy."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from metric_zoo.converters.nodes import ConvNode
from metric_zoo.converters.source import unsupported_reason
from metric_zoo.errors import ConversionError, suggest
from metric_zoo.nn.base import SampledConv2d
from metric_zoo.nn.registry import get_kind

MIN_INPUT_SIDE = 8
"""Pixels. Below this a window covers most of the map and there is little to adapt to."""

Where: TypeAlias = "str | Iterable[str] | Mapping[str, str | None] | Callable[[ConvNode], object] | None"


@dataclass(frozen=True)
class Decision:
    """The kind a convolution becomes, or None and the reason.

    ``outcome`` tells reasons apart: ``"convert"``; ``"unselected"`` by ``where``; ``"unwanted"`` by the policy or for
    its 1x1 kernel; ``"unsupported"``, a class the converter does not know; ``"settled"``, it is as asked already.
    """

    kind: str | None
    reason: str = ""
    outcome: str = "convert"


def select(nodes: list[ConvNode], to: str, where: Where = None) -> dict[str, Decision]:
    """Decide on every convolution.

    The default policy takes every convolution with a kernel larger than 1x1 that is called, overlaps its windows, sees
    at least 8 pixels a side and is not the stem. An explicit ``where`` overrides the policy's preferences (stem, small
    input, patches, not called), not its impossibilities (1x1, unknown subclasses).

    Args:
        nodes: from `analyse`.
        to: the kind.
        where: None; a regular expression for whole names; a list of convolutions or of modules that hold them; ordered
            rules ``{pattern: kind or None}``, of which the last that matches counts, patterns being globs, or regular
            expressions after ``re:``; or a callable on a `ConvNode` that returns a kind, or whether to convert.

    Returns:
        A decision for every name.

    Raises:
        ConversionError: if ``where`` is malformed or one of its expressions matches no convolution.
    """
    get_kind(to)
    wanted = _wanted(nodes, to, where)
    return {node.name: _decide(node, wanted[node.name], explicit=where is not None) for node in nodes}


def _decide(node: ConvNode, kind: str | None, explicit: bool) -> Decision:
    if kind is None:
        return Decision(None, "not selected", "unselected")
    if kind == "standard":
        return Decision(None, "kind 'standard' keeps the ordinary convolution", "settled")
    if isinstance(node.module, SampledConv2d):
        if node.module.kind == kind:
            return Decision(None, f"already {kind}", "settled")
        raise ConversionError(
            f"{node.name} is already {node.module.kind!r} and cannot become {kind!r}: revert the model first, "
            "or leave that layer out by 'where'"
        )
    if max(node.kernel) == 1:
        return Decision(None, "1x1 kernel: one sample, nothing to spread", "unwanted")
    unsupported = unsupported_reason(node.module)
    if unsupported:
        return Decision(None, unsupported, "unsupported")
    unwanted = "" if explicit else _unwanted(node)
    return Decision(None, unwanted, "unwanted") if unwanted else Decision(kind)


def _unwanted(node: ConvNode) -> str:
    if node.calls == 0:
        return "not called in evaluation"
    if node.patchify:
        return "patch embedding: stride equals kernel"
    if node.order == 0:
        return "stem: the first convolution"
    side = min(node.input_shape[-2:])
    return f"input of {side} px, below {MIN_INPUT_SIDE}" if side < MIN_INPUT_SIDE else ""


def _wanted(nodes: list[ConvNode], to: str, where: Where) -> dict[str, str | None]:
    names = [node.name for node in nodes]
    if where is None:
        return dict.fromkeys(names, to)
    if isinstance(where, str):
        chosen = _matching(names, "re:" + where)
        return {name: to if name in chosen else None for name in names}
    if isinstance(where, Mapping):
        return _by_rules(names, where)
    if callable(where):
        return {node.name: _answer(where(node), to, node) for node in nodes}
    if isinstance(where, Iterable):
        chosen = set().union(*(_held_by(names, entry) for entry in where))
        return {name: to if name in chosen else None for name in names}
    raise ConversionError(
        f"where is a {type(where).__name__}, expected None, a regular expression, a list of names, a dict of rules "
        "or a callable"
    )


def _by_rules(names: list[str], rules: Mapping[str, str | None]) -> dict[str, str | None]:
    wanted: dict[str, str | None] = dict.fromkeys(names)
    for pattern, kind in rules.items():
        if kind is not None:
            get_kind(kind)
        wanted.update(dict.fromkeys(_matching(names, pattern), kind))
    return wanted


def _matching(names: list[str], pattern: str) -> list[str]:
    """Names that a glob, or a regular expression after ``re:``, matches from end to end."""
    expression = pattern[3:] if pattern.startswith("re:") else fnmatch.translate(pattern)
    try:
        compiled = re.compile(expression)
    except re.error as error:
        raise ConversionError(f"where: {expression!r} is not a regular expression: {error}") from None
    found = [name for name in names if compiled.fullmatch(name)]
    if not found:
        raise ConversionError(f"where: {pattern.removeprefix('re:')!r} matches none of {_listing(names)}")
    return found


def _held_by(names: list[str], entry: object) -> set[str]:
    if not isinstance(entry, str):
        raise ConversionError(f"where: {entry!r} is a {type(entry).__name__}, expected a module's name")
    found = {name for name in names if name == entry or name.startswith(f"{entry}.")}
    if not found:
        raise ConversionError(f"where: no convolution is named {entry!r} or lies in it{suggest(entry, names)}")
    return found


def _answer(answer: object, to: str, node: ConvNode) -> str | None:
    if isinstance(answer, str):
        get_kind(answer)
        return answer
    if answer is None or isinstance(answer, bool):
        return to if answer else None
    raise ConversionError(f"where({node.name}) returned {answer!r}, expected a kind, True, False or None")


def _listing(names: list[str]) -> str:
    shown = ", ".join(names[:6])
    return f"the {len(names)} convolutions ({shown}{', ...' if len(names) > 6 else ''})"
