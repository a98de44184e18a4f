"""Recipe files: YAML of a bounded size, depth and expansion, as plain values that JSON can hold."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from metric_zoo.errors import RecipeError
from metric_zoo.reading import read_text
from metric_zoo.text import told

MAX_BYTES = 2**18
MAX_DEPTH = 20
"""Levels of lists and mappings."""
MAX_VALUES = 20_000
"""Keys, values, lists and mappings of a file, each as often as an alias repeats it."""
_MAX_NUMBER = 100
"""Characters of a number."""

_TAG = "tag:yaml.org,2002:"
_SCALARS = tuple(_TAG + name for name in ("str", "int", "float", "bool", "null"))
_MERGE = _TAG + "merge"


def read_recipe_file(path: Path) -> dict[str, Any]:
    """The keys of a file: text, numbers, true, false, null, lists and mappings by text, nothing else.

    Raises:
        RecipeError: if it cannot be read, is not YAML, or is too large, too deep or too long.
    """
    try:
        return _mapping(read_text(path, MAX_BYTES))
    except OSError as error:
        raise RecipeError(f"recipe {path} cannot be read: {told(error)}") from None
    except yaml.YAMLError as error:
        raise RecipeError(f"recipe {path} is not YAML: {' '.join(str(error).split()):.500}") from None
    except ValueError as error:
        raise RecipeError(f"recipe {path} cannot be used: {error}") from None


def _mapping(text: str) -> dict[str, Any]:
    _check_depth(text)
    node = yaml.compose(text, Loader=yaml.SafeLoader)
    if not isinstance(node, yaml.MappingNode):
        raise ValueError("it is empty or a list, expected keys such as name, models and kinds")
    _check_size(node)
    values = yaml.SafeLoader("")
    for part in _parts(node):
        _check_part(part, values)
    return values.construct_document(node)


def _check_depth(text: str) -> None:
    """Before a tree is made, which takes as many calls as there are levels."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                raise ValueError(f"{_line(event)} has more than {MAX_DEPTH} levels")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _check_size(root: yaml.Node) -> None:
    """Of what aliases and merged mappings expand to."""
    known: dict[int, tuple[int, int]] = {}
    open_: set[int] = set()

    def measured(node: yaml.Node) -> tuple[int, int]:
        """Values and levels."""
        if id(node) in open_:
            raise ValueError(f"{_line(node)} contains itself")
        if id(node) not in known:
            open_.add(id(node))
            parts = [measured(child) for child in _children(node)]
            open_.remove(id(node))
            known[id(node)] = 1 + sum(part[0] for part in parts), 1 + max((part[1] for part in parts), default=0)
        values, levels = known[id(node)]
        if values > MAX_VALUES:
            raise ValueError(f"{_line(node)} has more than {MAX_VALUES:,} values")
        if levels > MAX_DEPTH + 1:
            raise ValueError(f"{_line(node)} has more than {MAX_DEPTH} levels")
        return values, levels

    measured(root)


def _children(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [part for pair in node.value for part in pair]
    return node.value if isinstance(node, yaml.SequenceNode) else []


def _parts(root: yaml.Node) -> Iterator[yaml.Node]:
    """Every node once, a node before those in it."""
    known, left = {id(root)}, [root]
    while left:
        node = left.pop()
        yield node
        for child in reversed(_children(node)):
            if id(child) not in known:
                known.add(id(child))
                left.append(child)


def _check_part(node: yaml.Node, values: yaml.SafeLoader) -> None:
    if isinstance(node, yaml.MappingNode):
        _check_tag(node, _TAG + "map")
        _check_keys(node)
    elif isinstance(node, yaml.SequenceNode):
        _check_tag(node, _TAG + "seq")
    elif isinstance(node, yaml.ScalarNode):
        _check_scalar(node, values)


def _check_tag(node: yaml.Node, *allowed: str) -> None:
    if node.tag in allowed:
        return
    if node.tag == _TAG + "timestamp":
        raise ValueError(f"{_line(node)}: {node.value:.40} is a date to YAML: put it in quotes")
    if node.tag == _TAG + "value":
        raise ValueError(f"{_line(node)}: '=' has a meaning of its own in YAML: put it in quotes")
    tag = node.tag.replace(_TAG, "!!")
    raise ValueError(
        f"{_line(node)}: {tag:.60} is not allowed: text, numbers, true, false, null, lists and mappings are"
    )


def _check_keys(node: yaml.MappingNode) -> None:
    lines: dict[str, int] = {}
    for key, value in node.value:
        if key.tag == _MERGE:
            _check_merged(value)
        elif key.tag != _TAG + "str":
            said = f"{key.value:.40}" if isinstance(key, yaml.ScalarNode) else "of several parts"
            raise ValueError(f"{_line(key)}: key {said} is no text: put it in quotes")
        if key.value in lines:
            raise ValueError(f"{_line(key)}: key {_short(key.value)} is on line {lines[key.value]} already")
        lines[key.value] = key.start_mark.line + 1


def _check_merged(value: yaml.Node) -> None:
    parts = value.value if isinstance(value, yaml.SequenceNode) else [value]
    if not all(isinstance(part, yaml.MappingNode) for part in parts):
        raise ValueError(f"{_line(value)}: << takes mappings")


def _check_scalar(node: yaml.ScalarNode, values: yaml.SafeLoader) -> None:
    _check_tag(node, *_SCALARS, _MERGE)
    if node.tag in (_TAG + "int", _TAG + "float") and len(node.value) > _MAX_NUMBER:
        raise ValueError(f"{_line(node)}: a number of {len(node.value):,} characters, at most {_MAX_NUMBER} are read")
    try:
        value = node.value if node.tag == _MERGE else values.construct_object(node)
        if isinstance(value, str):
            value.encode()
    except (ValueError, LookupError):
        raise ValueError(f"{_line(node)}: {_short(node.value)} is no {node.tag.replace(_TAG, '')}") from None
    if isinstance(value, str) and "\0" in value:
        raise ValueError(f"{_line(node)}: text with a null character")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{_line(node)}: {node.value} is not finite")


def _line(part: yaml.Node | yaml.Event) -> str:
    return f"line {part.start_mark.line + 1}"


def _short(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:37] + "...")
