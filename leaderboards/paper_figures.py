"""Figures that papers publish, to stand beside ours: every task has its own."""

from __future__ import annotations

from collections.abc import Iterable

from metric_zoo.benchmarks.record import Record
from metric_zoo.benchmarks.tasks import Task, get_task
from metric_zoo.benchmarks.tasks.figures import Published


def published_for(record: Record) -> Published | None:
    """The figure that a run reproduces, by its task; None for most."""
    published = get_task(record.task).published
    return None if published is None else published.find(record)


def figures_of(tasks: Iterable[Task]) -> tuple[Published, ...]:
    """All that papers publish for some tasks."""
    return tuple(figure for task in tasks if task.published is not None for figure in task.published.figures)
