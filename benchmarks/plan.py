"""What a recipe asks for: before it runs, with an estimate, and while it does."""

from __future__ import annotations

import json
import os
import statistics
from collections import Counter
from functools import partial
from pathlib import Path

import torch

from metric_zoo.benchmarks import measure
from metric_zoo.benchmarks.checkpoint import last_position
from metric_zoo.benchmarks.data import Splits
from metric_zoo.benchmarks.launch import preflight
from metric_zoo.benchmarks.memory_fit import divisors, is_lack_of_memory
from metric_zoo.benchmarks.model import LAYOUTS, build_model, placed
from metric_zoo.benchmarks.optimization import build_optimizer
from metric_zoo.benchmarks.recipe import load_recipe
from metric_zoo.benchmarks.recipe_sections import MeasureConfig
from metric_zoo.benchmarks.record_files import identities, read_record, status_of
from metric_zoo.benchmarks.run_measurements import autocast_of
from metric_zoo.benchmarks.runs import Run, expand
from metric_zoo.benchmarks.sweep import CHECKPOINTS, LOCKS, is_claimed
from metric_zoo.benchmarks.tasks import get_task
from metric_zoo.errors import MetricZooError
from metric_zoo.text import columns

_FEW = MeasureConfig(warmup=1, repeats=3, seconds=0)
_TO_DO = "to do"


def plan_recipe(recipe: Path, folder: Path, processes: int = 1, cpu: bool = False, estimate: bool = True) -> str:
    """The runs of a recipe as a table: parameters, GFLOPs and, from a few training steps, hours and memory.

    An estimate is that of ONE process of this machine with its share of the batch; it counts the training steps alone,
    no loading, no evaluation and no measuring.

    Raises:
        MetricZooError: if the recipe is wrong or the data are missing.
    """
    _check_folder(folder)
    runs = _runs(recipe, processes, cpu)
    preflight(runs)
    rows = [["run", "state", "steps", "parameters", "GFLOPs"] + (["hours", "memory, MiB"] if estimate else [])]
    known: dict[str, tuple[list[str], float]] = {}
    hours = 0.0
    for run in runs:
        key = json.dumps([run.data.model_dump(), run.model.model_dump(), run.convolution.model_dump()], sort_keys=True)
        splits = get_task(run.task).training().load(run)
        steps = _steps(run, len(splits.train))
        if key not in known:
            known[key] = _figures(run, splits, steps, processes, estimate)
        state = _state(run, folder)
        figures, taken = known[key]
        hours += 0.0 if state.startswith(("done", "failed")) else taken
        rows.append([run.label, state, f"{steps:,}", *figures])
    left = f", about {hours:.2f} hours of training steps for what is not done" if estimate else ""
    return f"{columns(rows)}\n\n{len(runs)} runs{left}"


def _steps(run: Run, images: int) -> int:
    """Of training, and of the search for a learning rate before it."""
    if not run.learner.trains:
        return 0
    epochs, search = run.train.epochs, run.train.search
    if search is not None:
        epochs += len(search.lr) * (search.epochs or run.train.epochs)
    return images // run.train.batch_size * epochs


def _figures(run: Run, splits: Splits, steps: int, processes: int, estimate: bool) -> tuple[list[str], float]:
    """The cells of a run's row, and its hours; 0 without an estimate."""
    device, layout = torch.device(run.device), LAYOUTS[run.train.layout]
    model = placed(build_model(run, splits.info), device, layout)
    image = splits.train[0][0][None].to(device)
    figures = [f"{measure.count_parameters(model).total:,}", f"{measure.gflops(model, image):.4g}"]
    if not estimate or not run.learner.trains:
        return figures + ["", ""] * estimate, 0.0
    share = run.train.batch_size // processes
    for parts in divisors(share) if run.train.accumulate == "auto" else [run.train.accumulate]:
        images = image.expand(share // parts, -1, -1, -1).contiguous(memory_format=layout)
        try:
            seconds, memory = _step(run, model, images)
        except Exception as error:
            if not is_lack_of_memory(error):
                raise
            continue
        hours = seconds * parts * steps / 3600
        return [*figures, f"{hours:.2f}", f"{memory:,.0f}"], hours
    return [*figures, "does not fit", ""], 0.0


def _step(run: Run, model: torch.nn.Module, images: torch.Tensor) -> tuple[float, float]:
    """Seconds of one step, and MiB of weights, gradients, the optimiser's state and activations."""
    autocast = partial(autocast_of, run, images.device)
    kept = measure.activation_memory_mib(model, images, autocast)
    optimizer = build_optimizer(model, run.train)
    seconds = statistics.median(measure.timed(measure.training_step(model, optimizer, autocast), images, _FEW).seconds)
    state = sum(t.nbytes for group in optimizer.state.values() for t in group.values() if isinstance(t, torch.Tensor))
    weights = sum(2 * p.nbytes for p in model.parameters())
    return seconds, kept + (state + weights) / 2**20


def show_status(recipe: Path, folder: Path, processes: int | None = None, cpu: bool = False, gpu: bool = False) -> str:
    """Every run and its state, and how many are in each.

    Args:
        recipe, folder: as they were launched.
        processes: that trained each run together; None for whatever the folder has.
        cpu, gpu: the runs are on a CPU, or on GPUs, which this machine need not have; neither for whatever there is.

    Raises:
        MetricZooError: if the recipe is wrong.
    """
    _check_folder(folder)
    loaded = load_recipe(recipe)
    devices = ["cpu"] if cpu else ["cuda"] if gpu else ["cpu", "cuda"]
    counts = [processes] if processes is not None else divisors(loaded.train.batch_size)
    states, known = [], _ids(folder)
    for run in expand(loaded, counts[0], devices[-1]):
        ways = [run.model_copy(update={"processes": c, "device": d}) for c in counts for d in devices]
        begun = [(way, state) for way in ways if way.id in known and (state := _state(way, folder)) != _TO_DO]
        states += [(_called(way), state) for way, state in begun] or [(run.label, _TO_DO)]
    table = columns([["run", "state"], *(list(line) for line in states)])
    totals = Counter(state.split(":")[0] for _, state in states)
    return f"{table}\n\n" + ", ".join(f"{count} {state}" for state, count in sorted(totals.items()))


def _ids(folder: Path) -> set[str]:
    """Of all runs that left something in a folder."""
    begun = [path.name for name in (CHECKPOINTS, LOCKS) for path in (folder / name).glob("*")]
    return identities(folder).union(begun)


def _called(run: Run) -> str:
    where = [f"{run.processes} processes"] * (run.processes > 1) + ["GPU"] * (run.device == "cuda")
    return f"{run.label} ({', '.join(where)})" if where else run.label


def _check_folder(folder: Path) -> None:
    if os.path.exists(folder) and not os.path.isdir(folder):
        raise MetricZooError(f"{folder} is a file, expected a folder of records")


def _runs(recipe: Path, processes: int, cpu: bool) -> list[Run]:
    return expand(load_recipe(recipe), processes, "cpu" if cpu or not torch.cuda.is_available() else "cuda")


def _state(run: Run, folder: Path) -> str:
    """``done``, ``failed: why``, ``unreadable``, ``running: how far``, ``stopped: how far`` or ``to do``."""
    path = run.path(folder)
    status = status_of(path)
    if status == "ok":
        return "done"
    if status == "failed":
        failure = read_record(path).failure
        return f"failed: {failure.type}: {failure.message[:80]}" if failure else status
    if status is not None:
        return status
    position = last_position(folder / CHECKPOINTS / run.id)
    word = "running" if is_claimed(run, folder) else "stopped" if position else _TO_DO
    return f"{word}: {position}" if position else word
