"""One run from its description to its record."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from safetensors import SafetensorError
from torch import nn

from metric_zoo.benchmarks import measure
from metric_zoo.benchmarks.data.splits import Splits
from metric_zoo.benchmarks.hits import pack_hits
from metric_zoo.benchmarks.learning import Learning
from metric_zoo.benchmarks.log import RunLog
from metric_zoo.benchmarks.provenance import Clock, provenance
from metric_zoo.benchmarks.record import Record
from metric_zoo.benchmarks.record_files import keep_record
from metric_zoo.benchmarks.run_measurements import measured
from metric_zoo.benchmarks.runs import Run
from metric_zoo.benchmarks.sampling import sampling
from metric_zoo.benchmarks.search import Search, best_rate, search_rate, with_rate
from metric_zoo.benchmarks.tasks import get_task
from metric_zoo.benchmarks.weights import keep_weights
from metric_zoo.nn.kind import kind_of


def execute(
    run: Run,
    accelerator: Accelerator,
    path: Path,
    checkpoints: Path,
    log: RunLog,
    position: str = "",
    weights: bool = False,
) -> None:
    """Train, evaluate and measure one run; the main process writes its record, and the checkpoints go.

    Args:
        run: what to do.
        accelerator: fresh for this run.
        path: of the record.
        checkpoints: folder for those of this run.
        log: of this run; the main process writes to it.
        position: for the progress bar, such as ``"3/8"``.
        weights: keep those of the trained network beside the record.

    Raises:
        MetricZooError: if data or model cannot be had, or the record not be written; FloatingPointError if the loss
            is not finite.
        SystemExit: with `RESUMABLE`, when asked to stop while training.
    """
    clock, task = Clock(), get_task(run.task)
    splits = task.training().load(run)
    search, rate = Search({}, 0.0), None
    if run.train.search is not None and run.learner.trains:
        search = search_rate(run, accelerator, splits, checkpoints, log, position)
        rate = best_rate(search.losses)
    run_at_rate = run if rate is None else with_rate(run, rate)
    learning = run.learner.begin(run_at_rate, accelerator, splits, checkpoints, log, position)
    measure.reset_peak_memory()  # after looking for what fits, which fills the memory on purpose
    epochs = learning.train()
    peak, before = measure.peak_memory_mib(accelerator.device), learning.progress.seconds
    scores = _scores(learning, splits)
    if accelerator.is_main_process:
        if weights:
            _keep_weights(path, accelerator.unwrap_model(learning.scored), log)
        record = Record(
            **identity(run),
            **scores,
            **_network(learning.plain),
            status="ok",
            dataset=splits.info,
            epochs=epochs,
            micro_batches=learning.micro_batches,
            searched=search.losses,
            lr=rate,
            peak_memory_mib=peak,
            **sampling(accelerator.unwrap_model(learning.scored), run, accelerator, splits.test, log),
            **measured(run, accelerator.device, learning.plain, splits.train_clean, log),
            wall_seconds=search.seconds_before + before + clock.seconds(),
            provenance=provenance(clock),
        )
        keep_record(path, record)
        told = ", ".join(f"{name} {value:.4g}" for name, value in task.tested(record.test).items())
        log.write(f"done: {told}, {record.wall_seconds:.0f} s in all")
    accelerator.wait_for_everyone()
    learning.forget()


def _scores(learning: Learning, splits: Splits) -> dict[str, Any]:
    """The fields of a record that say how good a network is; every process takes part."""
    task, run = learning.task, learning.run
    train, test = learning.evaluate(splits.train_clean), learning.evaluate(splits.test)
    robustness = {}
    for name in task.corruptions if run.measure.corruptions else ():
        corrupted = learning.evaluate(task.training().corrupted(splits.test, name))
        robustness[name] = getattr(corrupted.scores, task.robust)
    return {
        "train": train.scores,
        "test": test.scores,
        "test_hits": None if test.hits is None else pack_hits(test.hits),
        "robustness": robustness,
        "generalization_gap": task.gap_of(train.scores, test.scores),
    }


def _network(model: nn.Module) -> dict[str, Any]:
    """Those that say how large it is."""
    converted = sum(kind_of(module) is not None for module in model.modules())
    return {"converted_layers": converted, "parameters": measure.count_parameters(model)}


def _keep_weights(path: Path, model: nn.Module, log: RunLog) -> None:
    """A disk that is full costs the weights, not the run's figures."""
    try:
        keep_weights(path, model)
    except (OSError, SafetensorError) as error:
        log.failure(error)
        print(f"{path.stem}: its weights could not be kept: {error}", file=sys.stderr, flush=True)


def identity(run: Run) -> dict:
    """The fields of a record that say which run it is, whatever became of it."""
    return {
        "id": run.id,
        "recipe": run.recipe,
        "task": run.task,
        "model": run.model.name,
        "source": run.model.source,
        "weights": "pretrained" if run.model.pretrained else None,
        "kind": run.convolution.kind,
        "options": run.convolution.options,
        "seed": run.seed,
        "world_size": run.processes,
        "device": torch.cuda.get_device_name() if run.device == "cuda" else run.device,
        "config": run.config,
    }
