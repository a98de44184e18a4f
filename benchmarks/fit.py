"""What fits a device's memory: found by trying."""

from __future__ import annotations

import gc
from collections.abc import Callable

import torch
from accelerate import Accelerator
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size

from metric_zoo.benchmarks.measure import training_step
from metric_zoo.benchmarks.model import build_model
from metric_zoo.benchmarks.optimization import build_optimizer
from metric_zoo.benchmarks.recipe import Run
from metric_zoo.benchmarks.record import DatasetInfo
from metric_zoo.errors import MetricZooError


def fits(attempt: Callable[[], object]) -> bool:
    """Whether an attempt runs; what it leaves behind is freed.

    Raises:
        Exception: the attempt's, if it fails for another reason than memory.
    """
    try:
        attempt()
        return True
    except Exception as error:
        if not should_reduce_batch_size(error):
            raise
        return False
    finally:
        gc.collect()
        clear_device_cache()


def largest_batch(attempt: Callable[[int], object], most: int) -> int | None:
    """The largest power of two of images, at most ``most``, with which an attempt runs; None if not even one."""
    found, batch = None, 1
    while batch <= most and fits(lambda: attempt(batch)):  # noqa: B023 - called at once
        found, batch = batch, 2 * batch
    return found


def micro_batches(run: Run, accelerator: Accelerator, data: DatasetInfo) -> int:
    """In how many parts every process computes its share of a step: the recipe's number, or the fewest that fit.

    All processes agree on the number, so that the slowest memory decides. A training step of zeros is what is tried, on
    a network that is thrown away: the run's own begins untouched.

    Raises:
        MetricZooError: if one image at a time is too much.
    """
    if run.train.accumulate != "auto":
        return run.train.accumulate
    share = run.train.batch_size // run.processes

    def attempt(images: int) -> None:
        model = build_model(run, data).to(accelerator.device)
        step = training_step(model, build_optimizer(model, run.train))
        with accelerator.autocast():
            step(torch.zeros(images, *data.image_shape, device=accelerator.device))

    for parts in (number for number in range(1, share + 1) if share % number == 0):
        fine = torch.tensor(float(fits(lambda: attempt(share // parts))), device=accelerator.device)  # noqa: B023
        if accelerator.reduce(fine, "sum").item() == accelerator.num_processes:
            return parts
    raise MetricZooError(f"{run.label}: a training step of one image does not fit the memory of {accelerator.device}")
