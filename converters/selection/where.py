"""What an explicit ``where`` asks for, before the policy has its say."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Iterable, Mapping
from typing import TypeAlias

from metric_zoo.converters.nodes import ConvNode
from metric_zoo.converters.selection.presets import PRESETS
from metric_zoo.errors import ConversionError, suggest
from metric_zoo.nn.kind import Promise
from metric_zoo.nn.registry import get_kind

Where: TypeAlias = "str | Iterable[str] | Mapping[str, str | None] | Callable[[ConvNode], object] | None"


def wanted_kinds(nodes: list[ConvNode], to: str, where: Where) -> dict[str, str | None]:
    """The kind that ``where`` gives every convolution, or None where it leaves one out.

    Raises:
        ConversionError: if ``where`` is malformed or one of its expressions matches no convolution.
    """
    names = [node.name for node in nodes]
    if where is None:
        return dict.fromkeys(names, to)
    if isinstance(where, str) and where in PRESETS:
        return {node.name: to if PRESETS[where].holds(node, nodes) else None for node in nodes}
    if isinstance(where, str):
        chosen = _matching(names, "re:" + where)
        return {name: to if name in chosen else None for name in names}
    if isinstance(where, Mapping):
        return _by_rules(names, to, where)
    if callable(where):
        return {node.name: _answer(where(node), to, node) for node in nodes}
    if isinstance(where, Iterable):
        chosen = set().union(*(_held_by(names, entry) for entry in where))
        return {name: to if name in chosen else None for name in names}
    raise ConversionError(
        f"where is a {type(where).__name__}, expected None, a regular expression, a list of names, a dict of rules "
        "or a callable"
    )


def check_kind(kind: str, to: str) -> None:
    """Raise unless a convolution can become ``kind`` in a conversion to ``to``.

    Raises:
        ConversionError: for a kind that approximates kernels beside one that does not; MetricZooError for an unknown
            kind.
    """
    approximate = [name for name in (kind, to) if get_kind(name).promise is Promise.APPROXIMATION]
    if len(approximate) == 1 and get_kind(kind).layer is not None:
        raise ConversionError(
            f"where: {kind!r} in a conversion to {to!r}: {approximate[0]} kernels stand in for fixed ones, which is "
            "another conversion than to kinds that sample anew; do one after the other"
        )


def _by_rules(names: list[str], to: str, rules: Mapping[str, str | None]) -> dict[str, str | None]:
    wanted: dict[str, str | None] = dict.fromkeys(names)
    for pattern, kind in rules.items():
        if not isinstance(pattern, str):
            raise ConversionError(f"where: {pattern!r} is a {type(pattern).__name__}, expected a pattern of names")
        if kind is not None:
            check_kind(kind, to)
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
        raise ConversionError(
            f"where: {pattern.removeprefix('re:')!r} matches none of {_listing(names)}, and is none of the presets "
            f"{[*PRESETS]}"
        )
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
        check_kind(answer, to)
        return answer
    if answer is None or answer in (True, False):
        return to if answer else None
    raise ConversionError(f"where({node.name}) returned {answer!r}, expected a kind, True, False or None")


def _listing(names: list[str]) -> str:
    shown = ", ".join(names[:6])
    return f"the {len(names)} convolutions ({shown}{', ...' if len(names) > 6 else ''})"
