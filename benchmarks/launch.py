"""Start a sweep: in this process, or as several worker processes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import torch

from metric_zoo.benchmarks.data import load_data
from metric_zoo.benchmarks.model import build_model
from metric_zoo.benchmarks.provenance import Clock
from metric_zoo.benchmarks.recipe import Run, expand, load_recipe
from metric_zoo.benchmarks.record import read_record, write_record
from metric_zoo.benchmarks.sweep import (
    PLAN,
    RUNNING,
    failed,
    failed_record,
    pending,
    run_pending,
    write_plan,
)
from metric_zoo.errors import MetricZooError, RecipeError

RECIPES = Path(__file__).parent / "recipes"


def find_recipe(name: str) -> Path:
    """A path, or the name of a recipe that comes with the package.

    Raises:
        RecipeError: listing the recipes that come with the package.
    """
    path = Path(name)
    if path.is_file():
        return path
    packaged = RECIPES / f"{name}.yaml"
    if packaged.exists() and path.name == name:
        return packaged
    known = ", ".join(sorted(p.stem for p in RECIPES.glob("*.yaml")))
    raise RecipeError(f"recipe {name!r} does not exist; give a YAML file or one of: {known}")


def run_recipe(
    recipe: Path, folder: Path, processes: int = 1, cpu: bool = False, retry_failed: bool = False
) -> Counter[str]:
    """Bring a recipe's records up to date in ``folder``.

    Args:
        recipe: YAML file.
        folder: of the records; runs whose record is there are skipped.
        processes: how many train each run together.
        cpu: do not use an accelerator.
        retry_failed: run again what failed before.

    Returns:
        How many runs are ``"ok"``, ``"failed"`` and were ``"skipped"``.

    Raises:
        MetricZooError: if the recipe is wrong or the processes cannot be started.
    """
    if processes < 1:
        raise MetricZooError(f"num-processes is {processes}, expected at least 1")
    device = "cuda" if not cpu and torch.cuda.is_available() else "cpu"
    runs = expand(load_recipe(recipe), processes, device)
    todo = pending(runs, folder) + (failed(runs, folder) if retry_failed else [])
    preflight(todo)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MetricZooError(f"{folder} cannot be made a folder for records: {error.strerror}") from None
    for run in todo:
        run.path(folder).unlink(missing_ok=True)
    if todo and processes == 1:
        run_pending(runs, folder)
    elif todo:
        _run_workers(runs, folder)
    outcome = Counter(read_record(run.path(folder)).status for run in runs)
    outcome["skipped"] = len(runs) - len(todo)
    return outcome


def preflight(runs: list[Run]) -> None:
    """Try what a recipe names before anything is trained: its data, its models, its conversions.

    Raises:
        MetricZooError: for missing data, an unknown model, an expression that selects nothing, an impossible option.
    """
    data = {run.data.model_dump_json(): run.data for run in runs}
    infos = {key: load_data(config).info for key, config in data.items()}
    tried = {(run.data.model_dump_json(), run.model.model_dump_json(), run.kind.model_dump_json()): run for run in runs}
    for run in tried.values():
        try:
            build_model(run, infos[run.data.model_dump_json()])
        except MetricZooError as error:
            raise RecipeError(f"{run.model.name}, {run.kind.kind}: {error}") from None
        except Exception:
            continue  # not a mistake we can name: the run itself will fail, and its record say how


def _run_workers(runs: list[Run], folder: Path) -> None:
    """Start workers until every run has a record; a run that kills them gets a failed one."""
    marker = folder / RUNNING
    write_plan(runs, folder)
    while todo := pending(runs, folder):
        marker.unlink(missing_ok=True)
        clock = Clock()
        processes = runs[0].processes
        code = subprocess.run(_command(folder, processes), env=_environment(processes)).returncode
        if len(pending(runs, folder)) < len(todo):
            continue
        running = marker.read_text(encoding="utf-8") if marker.exists() else None
        victim = next((run for run in todo if run.id == running), None)
        if victim is None:
            raise MetricZooError(f"the {processes} worker processes did not start (exit code {code}); see above")
        message = f"the worker processes ended with exit code {code} and left no word"
        write_record(victim.path(folder), failed_record(victim, clock, "WorkerDied", message))
    for file in (marker, folder / PLAN):
        file.unlink(missing_ok=True)


def _command(folder: Path, processes: int) -> list[str]:
    # accelerate launch silently starts ONE process on a CPU without MPI; torch's own launcher starts what it is told.
    torchrun = [sys.executable, "-m", "metric_zoo.benchmarks.torchrun", "--standalone", f"--nproc-per-node={processes}"]
    return [*torchrun, "-m", "metric_zoo.benchmarks.sweep", str(folder)]


def _environment(processes: int) -> dict[str, str]:
    """Share the cores out: the launcher's default is one thread for each process."""
    threads = max((os.cpu_count() or 1) // processes, 1)
    return {"OMP_NUM_THREADS": str(threads), **os.environ}
