"""Check many architectures in worker processes, each within its time and memory; stop and go on at will."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import psutil

from metric_zoo.benchmarks.conversion.architectures import Architecture
from metric_zoo.benchmarks.conversion.result import Result
from metric_zoo.benchmarks.conversion.store import Store
from metric_zoo.benchmarks.provenance import package_versions, source_state
from metric_zoo.errors import MetricZooError

_POLL = 0.2
"""Seconds between two looks at the workers' memory."""

_PACKAGES = ("metric-zoo", "torch", "torchvision", "timm")


@dataclass(frozen=True)
class Limits:
    """What a worker may use.

    Attributes:
        seconds: for all kinds of one architecture.
        gigabytes: for all workers together; one that exceeds its share is run again, alone.
        jobs: how many run at once, each on one thread.
    """

    seconds: float = 900.0
    gigabytes: float = 16.0
    jobs: int = 1

    def __post_init__(self) -> None:
        if not (self.seconds > 0 and self.gigabytes > 0 and self.jobs >= 1):
            raise MetricZooError(f"{self}: expected positive limits and at least one job")

    @classmethod
    def of_this_machine(cls, seconds: float, gigabytes: float | None = None, jobs: int | None = None) -> Limits:
        """All processors and three quarters of the memory, unless told otherwise."""
        memory = gigabytes if gigabytes is not None else 0.75 * psutil.virtual_memory().total / 2**30
        processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return cls(seconds, memory, jobs if jobs is not None else processors)


@dataclass
class _Job:
    architecture: Architecture
    kinds: tuple[str, ...]
    process: Any
    results: Connection
    deadline: float
    bytes: float
    alone: bool


class Sweep:
    """Checks architectures, and keeps what it finds in a `Store`.

    Args:
        kinds: to convert to.
        path: of the store's file. What it knows for the installed versions is not computed again.

    Raises:
        MetricZooError: if the file cannot be used.
    """

    def __init__(self, kinds: Sequence[str], path: Path) -> None:
        self.kinds = tuple(kinds)
        versions = ", ".join(f"{name} {version}" for name, version in package_versions(_PACKAGES).items())
        commit, modified = source_state()
        self.store = Store(path, versions, f"{commit[:12]}{' and changes' if modified else ''}" if commit else "")

    def missing(self, architecture: Architecture) -> tuple[str, ...]:
        """The kinds that are not known of an architecture."""
        known = {result.kind for result in self.store.results(architecture)}
        return tuple(kind for kind in self.kinds if kind not in known)

    def forget_failures(self, architectures: Iterable[Architecture]) -> None:
        """Drop the results that did not pass."""
        results = (result for architecture in architectures for result in self.store.results(architecture))
        self.store.forget([r for r in results if not r.passed and r.kind in self.kinds])

    def run(self, architectures: Iterable[Architecture], limits: Limits) -> Iterator[list[Result]]:
        """Check what is not known yet; yield the results of each architecture as it ends."""
        todo = deque((a, False) for a in architectures if self.missing(a))
        running: list[_Job] = []
        context = _context()
        try:
            while todo or running:
                while todo and _has_room(running, todo[0][1], limits):
                    architecture, alone = todo.popleft()
                    running.append(_start(context, architecture, alone, self.missing(architecture), limits))
                wait([job.results for job in running], timeout=_POLL)
                for job in list(running):
                    outcome = _outcome(job)
                    if outcome is None:
                        continue
                    _stop(job)
                    running.remove(job)
                    if outcome == "out of memory" and not job.alone and limits.jobs > 1:
                        todo.append((job.architecture, True))
                        continue
                    results = _results(job, outcome)
                    self.store.add(results)
                    yield results
        finally:
            for job in running:
                _stop(job)


def _results(job: _Job, outcome: list[dict[str, Any]] | str) -> list[Result]:
    if isinstance(outcome, str):
        return [_lost(job.architecture, kind, outcome) for kind in job.kinds]
    return [Result(**entry) for entry in outcome]


def _lost(architecture: Architecture, kind: str, outcome: str) -> Result:
    """The result of a worker that did not live to tell."""
    lost = Result(architecture.source, architecture.name, architecture.family, kind)
    lost.status = outcome if outcome in ("out of memory", "timed out") else "failed"
    lost.check, lost.message = ("", "") if lost.status == outcome else ("process", outcome)
    return lost


def _context() -> Any:
    """Workers forked from a process that has imported everything: importing takes longer than most checks."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["metric_zoo.benchmarks.conversion.checks", "timm", "torchvision"])
    return context


def _has_room(running: list[_Job], alone: bool, limits: Limits) -> bool:
    if any(job.alone for job in running):
        return False
    return not running if alone else len(running) < limits.jobs


def _start(context: Any, architecture: Architecture, alone: bool, kinds: tuple[str, ...], limits: Limits) -> _Job:
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(sender, architecture, kinds), daemon=True)
    process.start()
    sender.close()
    share = limits.gigabytes if alone else limits.gigabytes / limits.jobs
    return _Job(architecture, kinds, process, receiver, time.monotonic() + limits.seconds, share * 2**30, alone)


def _work(sender: Connection, architecture: Architecture, kinds: tuple[str, ...]) -> None:
    import torch

    from metric_zoo.benchmarks.conversion.checks import check_architecture

    torch.set_num_threads(1)
    # What models and frameworks print while they are built is nobody's to read.
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        results = check_architecture(architecture, kinds)
    sender.send([result.to_dict() for result in results])


def _outcome(job: _Job) -> list[dict[str, Any]] | str | None:
    """The worker's results; how it was lost; or None while it works."""
    if job.results.poll():
        try:
            return job.results.recv()
        except EOFError:
            job.process.join(5)
            return f"the worker died with exit code {job.process.exitcode}"
    if time.monotonic() > job.deadline:
        return "timed out"
    return "out of memory" if _resident(job.process.pid) > job.bytes else None


def _resident(pid: int) -> int:
    try:
        return psutil.Process(pid).memory_info().rss
    except psutil.Error:
        return 0


def _stop(job: _Job) -> None:
    job.process.join(0.5)  # one that has told its results is about to end
    job.process.kill()
    job.process.join()
    job.results.close()
