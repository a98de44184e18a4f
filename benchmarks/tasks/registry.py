"""Which tasks there are: those of this folder, those that other packages bring, and what is registered. No torch."""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Iterable
from contextlib import suppress
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from typing import Annotated

from pydantic import AfterValidator

from metric_zoo.benchmarks.schema import Word
from metric_zoo.benchmarks.tasks.task import Task
from metric_zoo.errors import MetricZooError, suggest

GROUP = "metric_zoo.tasks"
"""The entry points of other packages: a task's name, and the module or class that declares it."""

TaskName = Annotated[Word, AfterValidator(lambda name: get_task(name).name)]
"""Of a task that somebody declares."""

_PACKAGE = __name__.rpartition(".")[0]
_TASKS: dict[str, Task] = {}
_DECLARED = ("name", "label", "scores", "epoch", "main", "error")


def register(task: type[Task]) -> type[Task]:
    """Make a task known by its name; a decorator.

    Raises:
        MetricZooError: for a declaration that lacks something, a name that no page could have or that another task
            has, or scores that do not count images.
    """
    missing = [name for name in _DECLARED if not hasattr(task, name)]
    if missing:
        raise MetricZooError(f"task {getattr(task, 'name', task.__name__)!r} does not declare {', '.join(missing)}")
    if not isinstance(task.name, str) or not re.fullmatch("[a-z0-9]+(-[a-z0-9]+)*", task.name):
        raise MetricZooError(f"a task's name is {task.name!r}, expected small letters, digits and hyphens")
    former = type(_TASKS[task.name]) if task.name in _TASKS else task
    if (former.__module__, former.__qualname__) != (task.__module__, task.__qualname__):  # a cell may be run again
        raise MetricZooError(f"there is another task {task.name!r}: {former.__module__} declares it")
    if "images" not in task.scores.model_fields:
        raise MetricZooError(f"the scores of task {task.name!r} have no field 'images'")
    _TASKS[task.name] = task()
    return task


def get_task(name: str) -> Task:
    """By a recipe's word.

    Raises:
        MetricZooError: for one that nobody declares.
    """
    _own()
    if name not in _TASKS and (found := _foreign().get(name)) is not None:
        _load(found)
    if name not in _TASKS:
        known = list_tasks()
        raise MetricZooError(f"unknown task {name[:80]!r}{suggest(name[:80], known)}; known: {', '.join(known)}")
    return _TASKS[name]


def list_tasks() -> list[str]:
    """Names of all: those of this package, then the others."""
    own = _own()
    return [*own, *sorted({*_TASKS, *_foreign()} - {*own})]


def default_task() -> str:
    """The name of what recipes mean that name none."""
    return next(name for name in _own() if _TASKS[name].is_default)


def tasks_for(names: Iterable[str]) -> list[Task]:
    """This package's, and of the others those that are named: what tables of such records are of."""
    own = _own()
    return [_TASKS[name] for name in own] + [get_task(name) for name in sorted({*names} - {*own})]


def all_tasks() -> list[Task]:
    """All that can be loaded here, those of this package first; of a broken one its name, once used, says why."""
    for name in list_tasks():
        with suppress(MetricZooError):
            get_task(name)
    return tasks_for(_TASKS)


@lru_cache
def _own() -> tuple[str, ...]:
    """Every folder here declares a task or some that are akin."""
    for found in pkgutil.iter_modules(importlib.import_module(_PACKAGE).__path__):
        if found.ispkg:
            importlib.import_module(f"{_PACKAGE}.{found.name}")
    return tuple(name for name, task in _TASKS.items() if type(task).__module__.startswith(f"{_PACKAGE}."))


@lru_cache
def _foreign() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=GROUP)}


def _load(point: EntryPoint) -> None:
    try:
        found = point.load()
        if isinstance(found, type) and issubclass(found, Task):
            register(found)
    except Exception as error:
        raise MetricZooError(f"task {point.name!r} ({point.value}) cannot be loaded: {error!r:.200}") from None
    if point.name not in _TASKS:
        raise MetricZooError(f"task {point.name!r}: {point.value} declares no such task")
