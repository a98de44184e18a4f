"""Time and memory of functions measured in turn, so that what disturbs the machine disturbs all of them."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import statistics
import time
from collections.abc import Callable, Mapping

import torch

from metric_zoo.benchmarks.measure import peak_memory_mib, reset_peak_memory


def alternate(
    functions: Mapping[str, Callable[[], object]], repeats: int, device: torch.device
) -> dict[str, list[float]]:
    """Seconds of every function, ``repeats`` times each, one after the other; one more run before does not count."""
    wait = torch.cuda.synchronize if device.type == "cuda" else (lambda: None)
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for turn in range(repeats + 1):
        for name, function in functions.items():
            wait()
            start = time.perf_counter()
            function()
            wait()
            if turn:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def quartiles(values: list[float]) -> tuple[float, float, float]:
    """Lower quartile, median, upper quartile."""
    lower, median, upper = statistics.quantiles(values, n=4, method="inclusive")
    return lower, median, upper


def extra_memory_mib(function: Callable[[], object], device: torch.device) -> float | None:
    """Peak while ``function`` runs beyond what was in use before, its result included; None where unreadable."""
    gc.collect()
    if device.type == "cpu":
        with contextlib.suppress(OSError, AttributeError):  # what was freed goes back to the system: glibc only
            ctypes.CDLL("libc.so.6").malloc_trim(0)
    reset_peak_memory()
    before = peak_memory_mib(device)
    result = function()
    after = peak_memory_mib(device)
    del result
    return None if before is None or after is None else after - before
