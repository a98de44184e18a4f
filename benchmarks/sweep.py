"""Run what a recipe asks for and is not done yet, in this process or as one of several."""

from __future__ import annotations

import gc
import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path

from filelock import FileLock, Timeout
from pydantic import BaseModel

from metric_zoo.benchmarks import attempts
from metric_zoo.benchmarks.collect import LOCKS, remove_record
from metric_zoo.benchmarks.interruption import RESUMABLE, UNWRITABLE, end_with_parent, resumable, was_asked
from metric_zoo.benchmarks.log import RunLog
from metric_zoo.benchmarks.progress import Tally
from metric_zoo.benchmarks.provenance import Clock, provenance
from metric_zoo.benchmarks.record import Record
from metric_zoo.benchmarks.record_files import keep_record, set_aside, status_of
from metric_zoo.benchmarks.runs import Run
from metric_zoo.benchmarks.schema import MAX_TEXT, MAX_WORD, Failure
from metric_zoo.errors import MetricZooError, RecordError
from metric_zoo.text import beginning

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


class Plan(BaseModel):
    """What a launch tells its workers, in a file: an edited recipe cannot divide them."""

    runs: list[Run]
    folder: Path
    running: Path
    """Names the run in progress, for the launcher to blame if its workers die."""
    command: list[str] = []
    """What the user typed."""
    machines: int = 1
    tracker: str | None = None
    """One that accelerate knows, such as ``tensorboard``."""
    weights: bool = False
    """Whether to keep those of every trained network."""

    @property
    def stopped(self) -> Path:
        """The file that says that this launch was asked to stop; in the shared folder if there are other machines."""
        return stop_marker(self.folder) if self.machines > 1 else self.running.with_name("stopped")


def pending(runs: list[Run], folder: Path) -> list[Run]:
    """The runs without a record."""
    return [run for run in runs if status_of(run.path(folder)) is None]


def failed(runs: list[Run], folder: Path) -> list[Run]:
    """The runs whose record says that they failed."""
    return [run for run in runs if status_of(run.path(folder)) == "failed"]


@contextmanager
def claimed(run: Run, folder: Path, again: bool = False) -> Iterator[bool]:
    """Whether this process may work on a run: no other launch does, and there is no record yet.

    What lies in the record's place and can be none is renamed.

    Args:
        again: a record of a failure is no record; it goes.
    """
    record = run.path(folder)
    with _locked(run, folder) as mine:
        if not mine:
            yield False
            return
        status = status_of(record)
        if status == "failed" and again:
            remove_record(record)
        elif status is None and os.path.lexists(record):
            set_aside(record)
        yield status_of(record) is None


@contextmanager
def _locked(run: Run, folder: Path) -> Iterator[bool]:
    """Whether this process alone holds a run's lock."""
    path = folder / LOCKS / run.id
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=_MOMENT)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        if status_of(run.path(folder)) is not None:  # whoever locks a new file of this name finds the record
            path.unlink(missing_ok=True)
        lock.release()


def is_claimed(run: Run, folder: Path) -> bool:
    """Whether a launch works on a run at this moment."""
    if not os.path.exists(folder / LOCKS / run.id):
        return False
    with _locked(run, folder) as free:
        return not free and status_of(run.path(folder)) is None


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
    main = accelerator.is_main_process
    tally = Tally(len(pending(runs, folder)) if main else 0)
    for number, run in enumerate(runs, 1):
        with claimed(run, folder) if main else _decided_elsewhere() as mine:
            if not broadcast_object_list([mine and _begun(run, folder)])[0]:
                continue
            accelerator = _accelerator(run, cpu, plan)
            if main:
                plan.running.write_text(run.id, encoding="utf-8")
            ok = _run_one(run, accelerator, plan, f"{number}/{len(runs)}")
            if main:
                print(tally.after(ok), file=sys.stderr, flush=True)
    if main:
        plan.running.unlink(missing_ok=True)
        plan.stopped.unlink(missing_ok=True)
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
        if checkpoints.exists() and status_of(run.path(folder)) == "ok":
            shutil.rmtree(checkpoints, ignore_errors=True)


@contextmanager
def _decided_elsewhere() -> Iterator[None]:
    """In a process that the main one decides for."""
    yield None


def _begun(run: Run, folder: Path) -> bool:
    """Whether to try a run; one that took its process away too often is recorded as failed instead."""
    checkpoints = folder / CHECKPOINTS / run.id
    if attempts.begin(checkpoints):
        return True
    message = f"the process that ran it ended {attempts.MOST} times at the same place and left no word"
    keep_record(run.path(folder), failed_record(run, Clock(), "WorkerDied", message))
    attempts.end(checkpoints)
    print(f"{run.label} failed: WorkerDied: {message}", file=sys.stderr, flush=True)
    return False


def _run_one(run: Run, accelerator, plan: Plan, position: str) -> bool:
    """Whether it went well."""
    from metric_zoo.benchmarks.execute import execute

    clock, path, checkpoints = Clock(), run.path(plan.folder), plan.folder / CHECKPOINTS / run.id
    log = RunLog(plan.folder / LOGS / f"{path.stem}.log")
    try:
        execute(run, accelerator, path, checkpoints, log, position, plan.weights)
        return True
    except RecordError as error:  # it could not be written, which is no fault of the run: its checkpoints stay
        log.failure(error)
        raise
    except (Exception, SystemExit) as error:
        if isinstance(error, SystemExit) and error.code == RESUMABLE:
            raise
        log.failure(error)
        _record_failure(run, plan, clock, error, position)
        return False
    finally:
        attempts.end(checkpoints)
        _release(accelerator)


def _record_failure(run: Run, plan: Plan, clock: Clock, error: BaseException, position: str) -> None:
    """As one of several processes, end then."""
    path, kind, message = run.path(plan.folder), type(error).__name__, str(error)
    if was_asked() or (run.processes > 1 and _was_stopped(plan)):  # this one, or another, which ended the connection
        sys.exit(RESUMABLE)
    if run.processes == 1 or status_of(path) is None:  # one process's end is the next one's lost connection
        keep_record(path, failed_record(run, clock, kind, message))
    print(f"[{position}] {run.label} failed: {kind}: {message}", file=sys.stderr, flush=True)
    if run.processes > 1:
        sys.exit(1)


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
        failure=Failure(type=beginning(kind, MAX_WORD), message=beginning(message, MAX_TEXT)),
        wall_seconds=clock.seconds(),
        provenance=provenance(clock),
    )


def main() -> None:
    """Entry point of one worker process; its argument is the plan's file."""
    end_with_parent()
    with resumable(quiet=True):
        plan = Plan.model_validate_json(Path(sys.argv[1]).read_bytes())
        sys.argv = plan.command or sys.argv
        try:
            run_pending(plan)
        except MetricZooError as error:
            print(f"metric-zoo: {error}", file=sys.stderr, flush=True)
            _leave(UNWRITABLE)
        except SystemExit as error:
            _leave(error.code if isinstance(error.code, int) else 1)


def _leave(status: int) -> None:
    """In the middle of a run a wrapped model is alive and the others may be gone: a regular end would wait for them or
    abort, and hide the status."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def stop_marker(folder: Path) -> Path:
    """The file that says that some process of a launch was asked to stop, on whichever machine."""
    return folder / CHECKPOINTS / "stopped"


def _was_stopped(plan: Plan) -> bool:
    """Whether the process that ended first was asked to: its launcher says so, and a shared folder takes time.

    Meanwhile this process is told to stop, too, if one beside it died, and says nothing that would hide the cause.
    """
    deadline = time.monotonic() + _SECONDS_TO_TELL
    while time.monotonic() < deadline:
        if plan.stopped.exists():
            return True
        time.sleep(0.1)
    return False


if __name__ == "__main__":
    main()
