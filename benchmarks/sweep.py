"""Run what a recipe asks for and is not done yet, in this process or as one of several."""

from __future__ import annotations

import gc
import sys
from pathlib import Path

from pydantic import TypeAdapter

from metric_zoo.benchmarks.provenance import Clock, provenance
from metric_zoo.benchmarks.recipe import Run
from metric_zoo.benchmarks.record import Failure, Record, read_record, write_record
from metric_zoo.errors import MetricZooError

RUNNING = ".running"
"""File in the records' folder that names the run in progress, for the launcher to blame if its workers die."""

PLAN = ".runs"
"""File in the records' folder with the runs for the workers, so that an edited recipe cannot divide them."""

_RUNS = TypeAdapter(list[Run])


def write_plan(runs: list[Run], folder: Path) -> None:
    """Leave the runs for the workers."""
    (folder / PLAN).write_bytes(_RUNS.dump_json(runs))


def pending(runs: list[Run], folder: Path) -> list[Run]:
    """The runs without a record."""
    return [run for run in runs if not run.path(folder).exists()]


def failed(runs: list[Run], folder: Path) -> list[Run]:
    """The runs whose record says that they failed."""
    paths = {run.id: run.path(folder) for run in runs}
    return [run for run in runs if paths[run.id].exists() and read_record(paths[run.id]).status == "failed"]


def run_pending(runs: list[Run], folder: Path) -> None:
    """Execute every run without a record; the main process writes the records.

    Alone, a failure is recorded and the next run begins. As one of several processes the failing one records it and
    ends: the others may be waiting for it in a collective, and the launcher starts them afresh.

    Args:
        runs: of one recipe, in order; they say how many processes and which type of device there must be.
        folder: of the records.

    Raises:
        MetricZooError: if the environment provides others.
    """
    from accelerate import Accelerator

    asked, cpu = (runs[0].processes, runs[0].device), runs[0].device == "cpu"
    accelerator = Accelerator(cpu=cpu)
    given = accelerator.num_processes, accelerator.device.type
    if given != asked:
        raise MetricZooError(f"asked for {asked[0]} processes on {asked[1]}, the environment provides {given}")
    todo = pending(runs, folder)
    accelerator.wait_for_everyone()  # no process may look for records after another wrote one
    for run in todo:
        accelerator = _accelerator(run, cpu)
        position = f"{runs.index(run) + 1}/{len(runs)}"
        if accelerator.is_main_process:
            (folder / RUNNING).write_text(run.id, encoding="utf-8")
        clock = Clock()
        try:
            record = _execute(run, accelerator, position)
        except Exception as error:
            write_record(run.path(folder), failed_record(run, clock, type(error).__name__, str(error)))
            print(f"[{position}] {run.label} failed: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
            if run.processes > 1:
                sys.exit(1)
            continue
        if accelerator.is_main_process:
            write_record(run.path(folder), record)
    if accelerator.is_main_process:
        (folder / RUNNING).unlink(missing_ok=True)
    _release(accelerator)
    accelerator.end_training()


def _execute(run: Run, accelerator, position: str) -> Record:
    from metric_zoo.benchmarks.train import execute

    try:
        return execute(run, accelerator, position)
    finally:
        _release(accelerator)


def _accelerator(run: Run, cpu: bool):
    from accelerate import Accelerator, DataLoaderConfiguration
    from accelerate.state import AcceleratorState

    # The precision is the run's; accelerate keeps it per process, beside the process group that must live on.
    AcceleratorState._reset_state()
    loading = DataLoaderConfiguration(use_seedable_sampler=True, data_seed=run.seed)
    return Accelerator(cpu=cpu, mixed_precision=run.train.precision, dataloader_config=loading)


def _release(accelerator) -> None:
    """Drop the wrapped models: one still alive when a gloo process ends would abort it."""
    accelerator.free_memory()
    gc.collect()


def failed_record(run: Run, clock: Clock, kind: str, message: str) -> Record:
    """The record of a run that began at ``clock`` and did not end well."""
    from metric_zoo.benchmarks.train import identity

    return Record(
        **identity(run),
        status="failed",
        failure=Failure(type=kind, message=message[:2000]),
        wall_seconds=clock.seconds(),
        provenance=provenance(clock.started),
    )


def main() -> None:
    """Entry point of one worker process; its argument is the folder in which the launcher left the runs."""
    folder = Path(sys.argv[1])
    run_pending(_RUNS.validate_json((folder / PLAN).read_bytes()), folder)


if __name__ == "__main__":
    main()
