"""Hand a recipe to a cluster: jobs that share its runs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch

from metric_zoo.benchmarks.launch import Processes, preflight, run_recipe
from metric_zoo.benchmarks.recipe import load_recipe
from metric_zoo.benchmarks.runs import expand
from metric_zoo.benchmarks.sweep import LOGS
from metric_zoo.errors import MetricZooError
from metric_zoo.files import prepare_folder

EXECUTORS = ("slurm", "local")


def submit_recipe(
    recipe: Path,
    folder: Path,
    jobs: int,
    executor: str = "slurm",
    processes: int = 1,
    cpu: bool = False,
    minutes: int = 24 * 60,
    options: dict[str, Any] | None = None,
    weights: bool = False,
) -> list[Any]:
    """Submit jobs that each take the next run that no other works on, until none is left.

    A job that is killed loses at most what it did since its last checkpoint: submit again, and it goes on.

    Args:
        recipe: YAML file.
        folder: of the records, which all machines see.
        jobs: how many; more than there are runs would idle.
        executor: ``"slurm"``, or ``"local"``: processes of this machine.
        processes: of each job, one per GPU.
        cpu: do not ask for GPUs.
        minutes: that a job may take.
        options: more of submitit's parameters, such as ``slurm_partition``.
        weights: keep every trained network.

    Returns:
        submitit's jobs.

    Raises:
        MetricZooError: if submitit is not installed, there is no such executor, or the recipe is wrong.
    """
    try:
        import submitit
    except ImportError:
        raise MetricZooError("submitit is not installed: pip install 'metric-zoo[slurm]'") from None
    if executor not in EXECUTORS:
        raise MetricZooError(f"unknown executor {executor!r}; known: {', '.join(EXECUTORS)}")
    if jobs < 1:
        raise MetricZooError(f"jobs is {jobs}, expected at least 1")
    runs = expand(load_recipe(recipe), processes, "cpu" if cpu else "cuda")
    preflight(runs)
    parameters = {"name": recipe.stem, "timeout_min": minutes, "tasks_per_node": 1, **(options or {})}
    parameters["cpus_per_task"] = processes * (1 + runs[0].train.num_workers)
    if not cpu:
        parameters["gpus_per_node"] = processes
    prepare_folder(folder / LOGS / "jobs")
    job = _Job(recipe.resolve(), folder.resolve(), processes, cpu, weights)
    try:
        launcher = submitit.AutoExecutor(folder=folder / LOGS / "jobs", cluster=executor)
        launcher.update_parameters(**parameters)
        with launcher.batch():
            return [launcher.submit(job) for _ in range(jobs)]
    except (RuntimeError, NameError, ValueError) as error:
        raise MetricZooError(f"executor {executor!r}: {error}") from None


class _Job:
    """What a job does, and, when its time is up or it must make room, does again in a new one."""

    def __init__(self, recipe: Path, folder: Path, processes: int, cpu: bool, weights: bool) -> None:
        self._recipe, self._folder, self._processes, self._cpu, self._weights = recipe, folder, processes, cpu, weights
        self._command = sys.argv

    def __call__(self) -> dict[str, int]:
        if not self._cpu and not torch.cuda.is_available():
            raise MetricZooError("this job has no GPU: its runs would be others than those asked for")
        sys.argv = self._command  # what the user typed is what records tell
        return dict(
            run_recipe(self._recipe, self._folder, Processes(self._processes), self._cpu, weights=self._weights)
        )

    def checkpoint(self) -> Any:
        """submitit's protocol: what to submit in place of a job that is stopped."""
        import submitit

        return submitit.helpers.DelayedSubmission(self)
