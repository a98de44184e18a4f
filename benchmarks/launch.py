"""Start a sweep: in this process, or as several worker processes on one machine or more."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import ValidationError

from metric_zoo.benchmarks import attempts
from metric_zoo.benchmarks.data.splits import Splits
from metric_zoo.benchmarks.interruption import ENDED, RESUMABLE, SIGNALS, UNWRITABLE, resumable, say_stopped
from metric_zoo.benchmarks.mistakes import listed
from metric_zoo.benchmarks.model import build_model
from metric_zoo.benchmarks.provenance import Clock
from metric_zoo.benchmarks.recipe import load_recipe
from metric_zoo.benchmarks.record_files import keep_record, status_of
from metric_zoo.benchmarks.rendezvous import Rounds
from metric_zoo.benchmarks.runs import Run, expand
from metric_zoo.benchmarks.schema import MAX_TEXT, DatasetInfo, first_problem
from metric_zoo.benchmarks.search import held_out_count
from metric_zoo.benchmarks.sweep import (
    CHECKPOINTS,
    LOCKS,
    LOGS,
    Plan,
    claimed,
    failed,
    failed_record,
    is_claimed,
    pending,
    run_pending,
)
from metric_zoo.benchmarks.tasks import get_task
from metric_zoo.benchmarks.weights import WEIGHTS, weights_path
from metric_zoo.errors import DataError, MetricZooError, RecipeError, suggest
from metric_zoo.files import prepare_folder
from metric_zoo.text import beginning

_SECONDS_TO_BLAME = 120
"""For another machine to write the record of the run whose workers died."""

_SECONDS_TO_END = 30
"""For workers that were told to stop when the process that started them died."""


@dataclass(frozen=True)
class Processes:
    """Who trains each run together.

    Attributes:
        count: processes on all machines together, the same number on each.
        machines: how many.
        rank: of this machine, 0 for the one that the others connect to.
        address, port: of machine 0.
    """

    count: int = 1
    machines: int = 1
    rank: int = 0
    address: str = "127.0.0.1"
    port: int = 29500

    def check(self) -> None:
        """Raises: MetricZooError: for numbers that do not fit together."""
        if self.count < 1:
            raise MetricZooError(f"num-processes is {self.count}, expected at least 1")
        if self.machines < 1 or self.count % self.machines:
            raise MetricZooError(f"num-processes={self.count} cannot be shared out over {self.machines} machines")
        if not 0 <= self.rank < self.machines:
            raise MetricZooError(f"machine-rank is {self.rank}, expected 0 to {self.machines - 1}")


@resumable()
def run_recipe(
    recipe: Path,
    folder: Path,
    processes: Processes = Processes(),
    cpu: bool = False,
    retry_failed: bool = False,
    tracker: str | None = None,
    weights: bool = False,
) -> Counter[str]:
    """Bring a recipe's records up to date in ``folder``.

    Args:
        recipe: YAML file.
        folder: of the records; runs whose record is there are skipped, and so are those that another launch works on.
        processes: that train each run together.
        cpu: do not use an accelerator.
        retry_failed: run again what failed before.
        tracker: one that accelerate knows and that is installed, such as ``"tensorboard"``; it gets every epoch's
            figures.
        weights: keep every trained network in ``folder/weights``; `metric_zoo.benchmarks.weights` reads them.

    Returns:
        How many runs are ``"ok"``, ``"failed"``, ``"unreadable"`` (their record is), were ``"skipped"``, and are
        ``"elsewhere"``: in another launch.

    Raises:
        MetricZooError: if the recipe is wrong or the processes cannot be started.
        SystemExit: with `RESUMABLE`, when asked to stop.
    """
    processes.check()
    _check_tracker(tracker)
    device = "cuda" if not cpu and torch.cuda.is_available() else "cpu"
    here = processes.count // processes.machines
    if device == "cuda" and here > torch.cuda.device_count():
        raise MetricZooError(f"{here} processes on this machine, which has {torch.cuda.device_count()} GPUs")
    runs = expand(load_recipe(recipe), processes.count, device)
    todo = pending(runs, folder) + (failed(runs, folder) if retry_failed else [])
    preflight(todo)
    if todo:
        for name in ("", LOCKS, CHECKPOINTS, LOGS, *([WEIGHTS] if weights else [])):
            prepare_folder(folder / name)
    for run in failed(runs, folder) if retry_failed else []:
        with claimed(run, folder, again=True):
            pass
    if todo:
        with tempfile.TemporaryDirectory(prefix="metric-zoo-") as own:
            shared = {"command": [beginning(part, MAX_TEXT) for part in sys.argv], "machines": processes.machines}
            shared |= {"tracker": tracker, "weights": weights}
            plan = Plan(runs=runs, folder=folder, running=Path(own) / "running", **shared)
            plan.stopped.unlink(missing_ok=True)  # of a launch before
            if processes.count == 1:
                run_pending(plan)
            else:
                _run_workers(plan, Path(own) / "plan.json", processes)
    left = pending(runs, folder)
    if weights:
        _tell_missing_weights([run for run in runs if run not in left], folder)
    outcome = Counter(status_of(run.path(folder)) or "elsewhere" for run in runs if run not in left)
    outcome["skipped"] = len(runs) - len(todo)
    if left:
        outcome["elsewhere"] = len(left)
    return outcome


def _tell_missing_weights(done: list[Run], folder: Path) -> None:
    missing = [run for run in done if not weights_path(run.path(folder)).exists()]
    missing = [run.label for run in missing if status_of(run.path(folder)) == "ok"]
    if missing:
        print(f"{len(missing)} runs were done without keeping their weights, the first {missing[0]}", file=sys.stderr)


def _check_tracker(name: str | None) -> None:
    from accelerate.tracking import get_available_trackers
    from accelerate.utils import LoggerType

    if name is None or name in map(str, get_available_trackers()):
        return
    known = [str(kind) for kind in LoggerType if str(kind) != "all"]
    if name in known:
        raise MetricZooError(f"tracker {name!r} is not installed: pip install {name}")
    raise MetricZooError(f"unknown tracker {name!r}{suggest(name, known)}; accelerate knows: {', '.join(known)}")


def preflight(runs: list[Run]) -> None:
    """Try what a recipe names before anything is trained: its data, its models, its conversions.

    Raises:
        MetricZooError: for missing data, an unknown model, an expression that selects nothing, an impossible option;
            for all of a recipe's models and kinds at once.
    """
    data = {run.data.model_dump_json(): run for run in runs}
    splits = {key: _data_of(run) for key, run in data.items()}
    infos = {key: found.info for key, found in splits.items()}
    for run in runs:
        found = splits[run.data.model_dump_json()]
        size = found.info.train_size
        if run.train.search is not None and found.validation is None:
            size -= held_out_count(size)
        if run.train.batch_size > size and run.learner.trains:
            left = " that a search leaves" if run.train.search is not None else ""
            raise RecipeError(f"train.batch_size={run.train.batch_size} exceeds the {size} training images{left}")
    tried = {
        (run.data.model_dump_json(), run.model.model_dump_json(), run.convolution.model_dump_json()): run
        for run in runs
    }
    problems = [problem for run in tried.values() if (problem := _model_problem(run, infos))]
    if problems:
        raise RecipeError(listed(f"recipe {runs[0].recipe!r}", problems) if len(problems) > 1 else problems[0])


def _data_of(run: Run) -> Splits:
    try:
        return get_task(run.task).training().load(run)
    except ValidationError as error:
        raise DataError(f"data {run.data.name!r} cannot be described in a record: {first_problem(error)}") from None
    except OSError as error:
        raise DataError(f"data {run.data.name!r} cannot be read: {error}") from None


def _model_problem(run: Run, infos: dict[str, DatasetInfo]) -> str:
    try:
        build_model(run, infos[run.data.model_dump_json()])
    except MetricZooError as error:
        return f"{run.model.name}, {run.convolution.kind}: {error}"
    except Exception:
        return ""  # not a mistake we can name: the run itself will fail, and its record say how
    return ""


def _run_workers(plan: Plan, file: Path, processes: Processes) -> None:
    """Start workers until every run has a record or another launch; a run that kills them gets a failed one."""
    file.write_text(plan.model_dump_json(), encoding="utf-8")
    rounds = Rounds(plan.folder, processes.machines, processes.rank, processes.port)
    while todo := pending(plan.runs, plan.folder):
        for name in (plan.running, file.with_name(ENDED)):
            name.unlink(missing_ok=True)
        clock = Clock()
        with rounds.round(lambda: not pending(plan.runs, plan.folder)) as begun:
            if not begun:
                return
            code, stopped = _wait_for(_command(file, processes), _environment(processes), plan.stopped)
        if stopped or code == RESUMABLE or plan.stopped.exists():  # by us, or whoever told the workers or machines
            say_stopped()
            sys.exit(RESUMABLE)
        if code == UNWRITABLE:
            raise MetricZooError("the worker processes could not go on: see above")
        left = pending(plan.runs, plan.folder)
        if code == 0 and all(is_claimed(run, plan.folder) for run in left):
            return
        if (running := _in_progress(plan, left)) is not None:
            _wait_until_free(running, plan.folder)
            left = pending(plan.runs, plan.folder)
        how, victim = _how_they_ended(file, code), _in_progress(plan, left)
        if victim is not None:
            print(f"{victim.label} failed: WorkerDied: {how}", file=sys.stderr, flush=True)
            keep_record(victim.path(plan.folder), failed_record(victim, clock, "WorkerDied", how))
            attempts.end(plan.folder / CHECKPOINTS / victim.id)
        elif len(left) == len(todo) and not (processes.rank and _blamed_elsewhere(plan, len(todo))):
            raise MetricZooError(f"the {processes.count} worker processes did not start: {how}; see above")


def _in_progress(plan: Plan, left: list[Run]) -> Run | None:
    """The run that the workers were at when they ended, if it has no record."""
    try:
        running = plan.running.read_text(encoding="utf-8")
    except OSError:
        return None
    return next((run for run in left if run.id == running), None)


def _wait_until_free(run: Run, folder: Path) -> None:
    """Workers whose own launcher was killed have a step to finish, and hold the run's lock until then."""
    deadline = time.monotonic() + _SECONDS_TO_END
    while is_claimed(run, folder) and time.monotonic() < deadline:
        time.sleep(0.2)


def _how_they_ended(plan: Path, code: int) -> str:
    try:
        words = plan.with_name(ENDED).read_text(encoding="utf-8")
    except OSError:
        words = ""
    return f"{words or f'the worker processes ended with exit code {code}'} and left no word"


def _blamed_elsewhere(plan: Plan, todo: int) -> bool:
    """Whether another machine, whose launcher knows the run in progress, writes its record soon."""
    deadline = time.monotonic() + _SECONDS_TO_BLAME
    while time.monotonic() < deadline:
        if len(pending(plan.runs, plan.folder)) < todo:
            return True
        time.sleep(0.5)
    return False


def _wait_for(command: list[str], environment: dict[str, str], marker: Path) -> tuple[int, bool]:
    """The exit status of a command, and whether SIGTERM or SIGINT came meanwhile; it is told to end, and waited for.

    Args:
        marker: a file to leave then, for the workers of other machines: they only see a connection end.
    """
    child, stopped = subprocess.Popen(command, env=environment), False

    def stop(*_: object) -> None:
        nonlocal stopped
        stopped = True
        with suppress(OSError):
            marker.touch()
        child.terminate()

    before = {number: signal.signal(number, stop) for number in SIGNALS}
    try:
        return child.wait(), stopped
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _command(plan: Path, processes: Processes) -> list[str]:
    # accelerate launch silently starts ONE process on a CPU without MPI; torch's own launcher starts what it is told.
    torchrun = [sys.executable, "-m", "metric_zoo.benchmarks.torchrun"]
    torchrun.append(f"--nproc-per-node={processes.count // processes.machines}")
    if processes.machines == 1:
        torchrun.append("--standalone")
    else:
        torchrun += [f"--nnodes={processes.machines}", f"--node-rank={processes.rank}"]
        torchrun += [f"--master-addr={processes.address}", f"--master-port={processes.port}"]
    return [*torchrun, "-m", "metric_zoo.benchmarks.sweep", str(plan)]


def _environment(processes: Processes) -> dict[str, str]:
    """Share the cores out: the launcher's default is one thread for each process."""
    threads = max((os.cpu_count() or 1) // (processes.count // processes.machines), 1)
    # Workers that are told to stop have a step to finish and a checkpoint to write.
    return {"OMP_NUM_THREADS": str(threads), "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": "600", **os.environ}
