"""Run what a recipe asks for and is not done yet, in this process or as one of several."""

from __future__ import annotations

import gc
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path

from filelock import FileLock, Timeout
from pydantic import BaseModel

from metric_zoo.benchmarks.interruption import RESUMABLE, resumable
from metric_zoo.benchmarks.log import RunLog
from metric_zoo.benchmarks.progress import Tally
from metric_zoo.benchmarks.provenance import Clock, provenance
from metric_zoo.benchmarks.recipe import Run
from metric_zoo.benchmarks.record import MAX_TEXT, Failure, Record, read_record, write_record
from metric_zoo.errors import MetricZooError
from metric_zoo.text import utf8

CHECKPOINTS = ".checkpoints"
"""Folder beside the records, one folder in it for every run that is not done."""

LOGS = "logs"
"""Folder beside the records: a log of every run, and what a tracker writes."""

_PATIENCE = timedelta(days=7)
"""For the main process, while it measures alone."""

_MOMENT = 0.2
"""Seconds for which somebody may hold a lock only to look."""

_SECONDS_TO_TELL = 2.0
"""That news of another process may need through a shared folder."""

LOCKS = ".locks"
"""Folder beside the records: a locked file in it says that a launch works on that run. The system unlocks it when the
process ends, however it ends."""


class Plan(BaseModel):
    """What a launch tells its workers, in a file: an edited recipe cannot divide them."""

    runs: list[Run]
    folder: Path
    running: Path
    """Names the run in progress, for the launcher to blame if its workers die."""
    tracker: str | None = None
    """One that accelerate knows, such as ``tensorboard``."""
    weights: bool = False
    """Whether to keep those of every trained network."""


def pending(runs: list[Run], folder: Path) -> list[Run]:
    """The runs without a record."""
    return [run for run in runs if not run.path(folder).exists()]


def failed(runs: list[Run], folder: Path) -> list[Run]:
    """The runs whose record says that they failed."""
    paths = {run.id: run.path(folder) for run in runs}
    return [run for run in runs if paths[run.id].exists() and read_record(paths[run.id]).status == "failed"]


@contextmanager
def claimed(run: Run, folder: Path, again: bool = False) -> Iterator[bool]:
    """Whether this process may work on a run: no other launch does, and there is no record yet.

    Args:
        again: a record of a failure is no record; it goes.
    """
    path, record = folder / LOCKS / run.id, run.path(folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=_MOMENT)
    except Timeout:
        yield False
        return
    try:
        if again and record.exists() and read_record(record).status == "failed":
            record.unlink()
        yield not record.exists()
    finally:
        if record.exists():  # whoever locks a new file of this name finds the record
            path.unlink(missing_ok=True)
        lock.release()


def is_claimed(run: Run, folder: Path) -> bool:
    """Whether a launch works on a run at this moment."""
    if not (folder / LOCKS / run.id).exists():
        return False
    with claimed(run, folder) as free:
        return not free and not run.path(folder).exists()


def run_pending(plan: Plan) -> None:
    """Execute every run without a record that no other launch works on; the main process writes the records.

    Alone, a failure is recorded and the next run begins. As one of several processes the failing one records it and
    ends: the others may be waiting for it in a collective, and the launcher starts them afresh.

    Args:
        plan: of one launch; its runs say how many processes and which type of device there must be.

    Raises:
        MetricZooError: if the environment provides others.
        SystemExit: with `metric_zoo.benchmarks.interruption.RESUMABLE`, when asked to stop.
    """
    from accelerate import Accelerator
    from accelerate.utils import InitProcessGroupKwargs, broadcast_object_list

    runs, folder = plan.runs, plan.folder
    asked, cpu = (runs[0].processes, runs[0].device), runs[0].device == "cpu"
    accelerator = Accelerator(cpu=cpu, kwargs_handlers=[InitProcessGroupKwargs(timeout=_PATIENCE)])
    given = accelerator.num_processes, accelerator.device.type
    if given != asked:
        raise MetricZooError(f"asked for {asked[0]} processes on {asked[1]}, the environment provides {given}")
    main, tally = accelerator.is_main_process, Tally(len(pending(runs, folder)))
    for number, run in enumerate(runs, 1):
        with claimed(run, folder) if main else _told() as mine:
            if not broadcast_object_list([mine])[0]:
                continue
            accelerator = _accelerator(run, cpu, plan)
            if main:
                plan.running.write_text(run.id, encoding="utf-8")
            ok = _run_one(run, accelerator, plan, f"{number}/{len(runs)}")
            if main:
                print(tally.after(ok), file=sys.stderr, flush=True)
    if main:
        plan.running.unlink(missing_ok=True)
        stop_marker(folder).unlink(missing_ok=True)
        _tidy(runs, folder)
        for name in (LOCKS, CHECKPOINTS):
            with suppress(OSError):  # not empty, or gone
                (folder / name).rmdir()
    _release(accelerator)
    accelerator.end_training()


def _tidy(runs: list[Run], folder: Path) -> None:
    """Checkpoints of runs that were killed between their record and this."""
    for run in runs:
        checkpoints = folder / CHECKPOINTS / run.id
        if checkpoints.exists() and run.path(folder).exists() and read_record(run.path(folder)).status == "ok":
            shutil.rmtree(checkpoints, ignore_errors=True)


@contextmanager
def _told() -> Iterator[None]:
    """In a process that the main one decides for."""
    yield None


def _run_one(run: Run, accelerator, plan: Plan, position: str) -> bool:
    """Whether it went well."""
    from metric_zoo.benchmarks.execute import execute

    folder, clock = plan.folder, Clock()
    log = RunLog(folder / LOGS / f"{run.path(folder).stem}.log")
    try:
        execute(run, accelerator, run.path(folder), folder / CHECKPOINTS / run.id, log, position, plan.weights)
        return True
    except Exception as error:
        log.failure(error)
        if run.processes > 1 and _was_stopped(folder):  # another one was, and took the connection with it
            sys.exit(RESUMABLE)
        if run.processes == 1 or not run.path(folder).exists():  # one process's end is the next one's lost connection
            write_record(run.path(folder), failed_record(run, clock, type(error).__name__, str(error)))
        print(f"[{position}] {run.label} failed: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
        if run.processes > 1:
            sys.exit(1)
        return False
    finally:
        _release(accelerator)


def _accelerator(run: Run, cpu: bool, plan: Plan):
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    # The precision is the run's; accelerate keeps it per process, beside the process group that must live on.
    AcceleratorState._reset_state()
    logs = plan.folder / LOGS
    accelerator = Accelerator(
        cpu=cpu, mixed_precision=run.train.precision, log_with=plan.tracker, project_dir=logs if plan.tracker else None
    )
    if plan.tracker:
        accelerator.init_trackers(run.path(Path()).stem)
    return accelerator


def _release(accelerator) -> None:
    """Drop the wrapped models: one still alive when a gloo process ends would abort it."""
    for tracker in getattr(accelerator, "trackers", ()):
        tracker.finish()
    accelerator.free_memory()
    gc.collect()


def failed_record(run: Run, clock: Clock, kind: str, message: str) -> Record:
    """The record of a run that began at ``clock`` and did not end well."""
    from metric_zoo.benchmarks.execute import identity

    return Record(
        **identity(run),
        status="failed",
        failure=Failure(type=kind, message=utf8(message)[:MAX_TEXT]),
        wall_seconds=clock.seconds(),
        provenance=provenance(clock.started),
    )


def main() -> None:
    """Entry point of one worker process; its argument is the plan's file."""
    plan = Plan.model_validate_json(Path(sys.argv[1]).read_bytes())
    with resumable(stop_marker(plan.folder)):
        run_pending(plan)


def stop_marker(folder: Path) -> Path:
    """The file that says that some process of a launch was asked to stop, on whichever machine."""
    return folder / CHECKPOINTS / "stopped"


def _was_stopped(folder: Path) -> bool:
    """Whether the process that ended first was asked to: it says so before it goes, and a shared folder takes time."""
    deadline = time.monotonic() + _SECONDS_TO_TELL
    while time.monotonic() < deadline:
        if stop_marker(folder).exists():
            return True
        time.sleep(0.1)
    return False


if __name__ == "__main__":
    main()
