"""The time of functions measured in turn, so that what disturbs the machine disturbs all of them."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping

import torch

LEAST_REPEATS = 3
"""Or there are no quartiles."""
_MOMENT = 0.02
"""Seconds."""


def alternate(
    functions: Mapping[str, Callable[[], object]], repeats: int, device: torch.device, patience: float = math.inf
) -> dict[str, list[float]]:
    """Seconds of every function, ``repeats`` times each, one after the other; one more run before does not count.

    After ``patience`` seconds three times are enough. On a GPU, where launching takes longer than many a function,
    each time is that of as many calls as fill a moment, shared out.
    """
    wait = torch.cuda.synchronize if device.type == "cuda" else (lambda: None)
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    calls = dict.fromkeys(functions, 1)
    for turn in range(repeats + 1):
        if turn == 1:
            began = time.perf_counter()
        if turn > LEAST_REPEATS and time.perf_counter() - began > patience:
            break
        for name, function in functions.items():
            wait()
            start = time.perf_counter()
            for _ in range(calls[name]):
                function()
            wait()
            if turn:
                seconds[name].append((time.perf_counter() - start) / calls[name])
            elif device.type == "cuda":
                calls[name] = _calls_to_fill(function, wait)
    return seconds


def _calls_to_fill(function: Callable[[], object], wait: Callable[[], None]) -> int:
    start = time.perf_counter()
    function()
    wait()
    return max(1, math.ceil(_MOMENT / (time.perf_counter() - start)))


def quartiles(values: list[float]) -> tuple[float, float, float]:
    """Lower quartile, median, upper quartile."""
    lower, median, upper = statistics.quantiles(values, n=4, method="inclusive")
    return lower, median, upper
