"""Memory of a function."""

from __future__ import annotations

import contextlib
import ctypes
import gc
from collections.abc import Callable

import torch

from metric_zoo.benchmarks.measure import peak_memory_mib, reset_peak_memory


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
