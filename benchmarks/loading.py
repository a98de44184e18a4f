"""How data are loaded, for training and for scores."""

from __future__ import annotations

import signal
from typing import Any, cast

import torch
from accelerate import Accelerator
from torch.utils.data import DataLoader, Dataset

from metric_zoo.benchmarks.data.splits import ImageSet
from metric_zoo.benchmarks.interruption import SIGNALS
from metric_zoo.benchmarks.runs import Run
from metric_zoo.benchmarks.tasks import get_task


def loading(workers: int, accelerator: Accelerator) -> dict[str, Any]:
    """How a `DataLoader` loads."""
    return {
        "num_workers": workers,
        "persistent_workers": workers > 0,
        "pin_memory": accelerator.device.type == "cuda",
        "worker_init_fn": ignore_requests,
        "generator": torch.Generator(),  # or every loader draws from the one that dropout uses
    }


def evaluation_loader(dataset: ImageSet, run: Run, accelerator: Accelerator, parts: int = 1) -> DataLoader:
    """Of this process's share of a split to evaluate, after training in so many micro-batches."""
    together = get_task(run.task).training().evaluation_batch(run, parts)
    batch_size = max(1, together // accelerator.num_processes)
    workers = loading(run.train.num_workers, accelerator)
    return accelerator.prepare(DataLoader(cast(Dataset, dataset), batch_size, **workers))


def ignore_requests(_: int) -> None:
    """In a process that loads data: whoever asks a run to stop often asks its whole group, and only the run decides."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
