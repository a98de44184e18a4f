"""What runs train for."""

from __future__ import annotations

from metric_zoo.benchmarks.tasks.task import Evaluation, Task


def get_task(name: str) -> Task:
    """By a recipe's word."""
    if name == "classification":
        from metric_zoo.benchmarks.tasks.classification import Classification

        return Classification()
    from metric_zoo.benchmarks.tasks.denoising import Denoising, SingleImageDenoising

    return Denoising() if name == "denoising" else SingleImageDenoising()


__all__ = ["Evaluation", "Task", "get_task"]
