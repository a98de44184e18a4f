"""Where figures come from: versions, source state, hardware."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
import time
from collections.abc import Iterable
from datetime import datetime, timedelta, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from metric_zoo.benchmarks.schema import MAX_TEXT, Provenance
from metric_zoo.text import beginning

_PACKAGES = ("metric-zoo", "torch", "torchvision", "timm", "accelerate", "numpy")


class Clock:
    """When something began, and how long ago."""

    def __init__(self) -> None:
        self.started = _now()
        self._start = time.perf_counter()

    def seconds(self) -> float:
        """Wall time since the beginning."""
        return time.perf_counter() - self._start

    def finished(self) -> str:
        """Now, as ``started``: by what has passed, since the system's clock may have been set meanwhile."""
        now = datetime.fromisoformat(self.started) + timedelta(seconds=self.seconds())
        return now.isoformat(timespec="seconds")


def _now() -> str:
    """The time in UTC, ISO 8601, to the second."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def provenance(clock: Clock) -> Provenance:
    """Of what began at ``clock``: gather what can be read on this machine; what cannot is None."""
    sha, dirty = source_state()
    return Provenance(
        versions=package_versions(_PACKAGES),
        git_sha=sha,
        git_dirty=dirty,
        hardware=hardware(),
        driver=_driver(),
        command=beginning(shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]), MAX_TEXT),
        started=clock.started,
        finished=clock.finished(),
    )


def package_versions(packages: Iterable[str]) -> dict[str, str]:
    """Versions of Python and of some distributions; ``"unknown"`` where one is not installed."""
    found = {"python": platform.python_version()}
    for name in packages:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "unknown"
    return found


def source_state() -> tuple[str | None, bool | None]:
    """Commit of the checkout this package runs from, and whether tracked files differ from it; None outside one."""
    folder = Path(__file__).resolve().parent

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True, timeout=20
        ).stdout.strip()

    try:
        # An installed copy may lie inside somebody else's checkout: only count one that tracks this file.
        git("ls-files", "--error-unmatch", Path(__file__).name)
        return git("rev-parse", "HEAD"), bool(git("status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.SubprocessError):
        return None, None


def hardware() -> dict[str, Any]:
    """Processor, cores, memory and accelerators."""
    import torch

    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 0
    return {
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "memory_gib": round(memory / 2**30, 1),
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
    }


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _driver() -> str | None:
    import torch

    if not torch.cuda.is_available():
        return None
    try:
        query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        return subprocess.run(query, capture_output=True, text=True, check=True, timeout=20).stdout.split("\n")[0]
    except (OSError, subprocess.SubprocessError):
        return None
