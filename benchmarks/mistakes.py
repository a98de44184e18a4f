"""What is wrong with a recipe, in words: all of it, each with its place, the value given and the nearest key."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from metric_zoo.errors import suggest

_SHOWN = 20
Place = tuple[int | str, ...]


def listed(where: str, problems: list[str]) -> str:
    """Of one problem a line; of several a line each, the first twenty."""
    problems = list(dict.fromkeys(problems))
    if len(problems) == 1:
        return f"{where}: {problems[0]}"
    more = [f"and {len(problems) - _SHOWN} more"] if len(problems) > _SHOWN else []
    return "\n  ".join([f"{where} has {len(problems)} mistakes:", *problems[:_SHOWN], *more])


def mistakes(error: ValidationError, data: Any, model: type[BaseModel]) -> list[str]:
    """A line for every place of ``data`` that is no ``model``, in the order of the model's fields."""
    found: dict[Place, list[ErrorDetails]] = {}
    for problem in error.errors(include_url=False):
        found.setdefault(_place(problem, data), []).append(problem)
    # Of what may have several types, the type that got farthest is what was meant.
    passed = {place[:end] for place in found for end in range(1, len(place))}
    return [_words(place, problems, model) for place, problems in found.items() if place not in passed]


def _place(problem: ErrorDetails, data: Any) -> Place:
    """Where in the data; pydantic names the types that it tried, too."""
    place: list[int | str] = []
    for part in problem["loc"]:
        try:
            data = data[part]
        except (LookupError, TypeError):
            continue
        place.append(part)
    return (*place, problem["loc"][-1]) if problem["type"] == "missing" else tuple(place)


def _words(place: Place, problems: list[ErrorDetails], model: type[BaseModel]) -> str:
    problem = problems[0]
    if problem["type"] == "extra_forbidden":
        return _unknown(place, problem, model)
    told = " or ".join(dict.fromkeys(problem["msg"].removeprefix("Value error, ") for problem in problems))
    name = ".".join(map(str, place)) or "the whole"
    if problem["type"] == "missing" or (problem["type"] == "value_error" and isinstance(problem["input"], dict)):
        return f"{name}: {told}"
    return f"{name}: {told}, got {problem['input']!r:.80}{_nearest(problem)}"


def _nearest(problem: ErrorDetails) -> str:
    """Of the words that were expected."""
    if problem["type"] != "literal_error" or not isinstance(problem["input"], str):
        return ""
    return suggest(problem["input"][:80], re.findall(r"'([^']*)'", problem.get("ctx", {})["expected"]))


def _unknown(place: Place, problem: ErrorDetails, model: type[BaseModel]) -> str:
    *parents, key = place
    key, known = str(key), list(_fields(model, parents))
    inside = f" in {'.'.join(map(str, parents))}" if parents else ""
    near = suggest(key[:80], known) or _elsewhere(key, model)
    return f"unknown key {key!r:.80}{inside}{near}; known: {', '.join(known)}; got {problem['input']!r:.80}"


def _fields(model: type[BaseModel], parents: list[int | str]) -> dict[str, FieldInfo]:
    for name in parents:
        if isinstance(name, str):
            model = next(_models(model.model_fields[name].annotation))
    return model.model_fields


def _elsewhere(key: str, model: type[BaseModel]) -> str:
    """The section that has such a key."""
    places = {"": model}
    for name, field in model.model_fields.items():
        places |= {f"{name}.": part for part in _models(field.annotation)}
    found = next((f"{place}{key}" for place, part in places.items() if key in part.model_fields), None)
    return f"; did you mean {found!r}?" if found else ""


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    """In a field's type: the section itself, or that of a list."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models(part)
