"""What runs train for. A folder declares a task, or some that are akin; `register` makes others known. No torch."""

from __future__ import annotations

from metric_zoo.benchmarks.tasks.figures import Figure, Gap, MainScore
from metric_zoo.benchmarks.tasks.registry import (
    TaskName,
    default_task,
    get_task,
    list_tasks,
    register,
    tasks_for,
)
from metric_zoo.benchmarks.tasks.task import Task

__all__ = [
    "Figure",
    "Gap",
    "MainScore",
    "Task",
    "TaskName",
    "default_task",
    "get_task",
    "list_tasks",
    "register",
    "tasks_for",
]
