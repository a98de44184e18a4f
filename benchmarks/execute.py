"""One run from its description to its record."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from accelerate import Accelerator
from safetensors import SafetensorError
from torch import nn

from metric_zoo.benchmarks import measure
from metric_zoo.benchmarks.data import Splits
from metric_zoo.benchmarks.hits import pack_hits
from metric_zoo.benchmarks.log import RunLog
from metric_zoo.benchmarks.peer_learner import Tuner
from metric_zoo.benchmarks.provenance import Clock, provenance
from metric_zoo.benchmarks.recipe import PEER, Run
from metric_zoo.benchmarks.record import Record, keep_record
from metric_zoo.benchmarks.run_measurements import measured
from metric_zoo.benchmarks.search import Search, best_rate, search_rate, with_rate
from metric_zoo.benchmarks.tasks import get_task
from metric_zoo.benchmarks.tasks.corruptions import CORRUPTIONS, Corrupted
from metric_zoo.benchmarks.train import Trainer
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
    splits = task.load(run)
    search, rate = Search({}, 0.0), None
    if run.train.search is not None and run.kind.kind != PEER:
        search = search_rate(run, accelerator, splits, checkpoints, log, position)
        rate = best_rate(search.losses)
    learner = _learner(run if rate is None else with_rate(run, rate), accelerator, splits, checkpoints, log, position)
    measure.reset_peak_memory()  # after looking for what fits, which fills the memory on purpose
    epochs = learner.train()
    peak, before = measure.peak_memory_mib(accelerator.device), learner.progress.seconds
    train, test = learner.evaluate(splits.train_clean), learner.evaluate(splits.test)
    robustness = {}
    for name in CORRUPTIONS if run.measure.corruptions and task.corruptible else ():
        robustness[name] = learner.evaluate(Corrupted(splits.test, name)).scores.top1
    plain = learner.plain
    if accelerator.is_main_process:
        if weights:
            _keep_weights(path, accelerator.unwrap_model(learner.scored), log)
        record = Record(
            **identity(run),
            status="ok",
            dataset=splits.info,
            converted_layers=sum(kind_of(m) is not None for m in plain.modules()),
            parameters=measure.count_parameters(plain),
            train=train.scores,
            test=test.scores,
            test_hits=None if test.hits is None else pack_hits(test.hits),
            robustness=robustness,
            generalization_gap=task.gap(train.scores, test.scores),
            epochs=epochs,
            micro_batches=learner.micro_batches,
            searched=search.losses,
            lr=rate,
            peak_memory_mib=peak,
            **measured(run, accelerator.device, plain, splits.train_clean, log),
            wall_seconds=search.seconds_before + before + clock.seconds(),
            provenance=provenance(clock),
        )
        keep_record(path, record)
        told = ", ".join(f"{name} {value:.4g}" for name, value in task.testing(test.scores).items())
        log.write(f"done: {told}, {record.wall_seconds:.0f} s in all")
    accelerator.wait_for_everyone()
    learner.forget()


def _learner(
    run: Run, accelerator: Accelerator, splits: Splits, checkpoints: Path, log: RunLog, position: str
) -> Trainer | Tuner:
    if run.kind.kind == PEER:
        return Tuner(run, accelerator, splits)
    return Trainer(run, accelerator, splits, checkpoints, log, position)


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
        "kind": run.kind.kind,
        "options": run.kind.options,
        "seed": run.seed,
        "world_size": run.processes,
        "device": torch.cuda.get_device_name() if run.device == "cuda" else run.device,
        "config": run.config,
    }
