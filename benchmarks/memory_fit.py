"""What fits a device's memory: found by trying."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import cast

import torch
from accelerate import Accelerator
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size
from torch import Tensor

from metric_zoo.benchmarks.measure import Autocast, training_step
from metric_zoo.benchmarks.model import LAYOUTS, build_model, placed
from metric_zoo.benchmarks.optimization import build_optimizer, moving_average
from metric_zoo.benchmarks.runs import Run
from metric_zoo.benchmarks.schema import DatasetInfo
from metric_zoo.errors import MetricZooError


def is_lack_of_memory(error: Exception) -> bool:
    """Whether a device, or the system, had no memory left."""
    return should_reduce_batch_size(error) or isinstance(error, MemoryError)


def fits(attempt: Callable[[], object]) -> bool:
    """Whether an attempt runs; what it leaves behind is freed.

    Raises:
        Exception: the attempt's, if it fails for another reason than memory.
    """
    try:
        attempt()
        return True
    except Exception as error:
        if not is_lack_of_memory(error):
            raise
        return False
    finally:
        gc.collect()
        clear_device_cache()


def largest_batch(attempt: Callable[[int], object], most: int) -> int | None:
    """The largest power of two of images, at most ``most``, with which an attempt runs; None if not even one.

    Raises:
        Exception: the first attempt's, for another reason than memory; a later one's only ends the search, since
            large batches meet other limits, too.
    """
    found, batch = None, 1
    while batch <= most:
        try:
            if not fits(lambda: attempt(batch)):  # noqa: B023 - called at once
                break
        except Exception:
            if found is None:
                raise
            break
        found, batch = batch, 2 * batch
    return found


def micro_batches(run: Run, accelerator: Accelerator, data: DatasetInfo) -> int:
    """In how many parts every process computes its share of a step: the recipe's number, or the fewest that fit.

    All processes agree on the number, so that the smallest memory decides. Two training steps on zeros are what is
    tried, with what a run holds beside them (a moving average, the gradients of earlier parts, the buffers in which
    several processes add theirs), on a network that is thrown away: the run's own begins untouched.

    Raises:
        MetricZooError: if one image at a time is too much.
    """
    if run.train.accumulate != "auto":
        return run.train.accumulate
    share = run.train.batch_size // run.processes
    for parts in divisors(share):
        fine = torch.tensor(float(fits(lambda: _attempt(run, accelerator, data, parts))), device=accelerator.device)  # noqa: B023
        if cast(Tensor, accelerator.reduce(fine, "sum")).item() == accelerator.num_processes:
            return parts
    raise MetricZooError(f"{run.label}: a training step of one image does not fit the memory of {accelerator.device}")


def divisors(number: int) -> list[int]:
    """From 1 to the number itself."""
    return [candidate for candidate in range(1, number + 1) if number % candidate == 0]


def _attempt(run: Run, accelerator: Accelerator, data: DatasetInfo, parts: int) -> None:
    device, layout = accelerator.device, LAYOUTS[run.train.layout]
    model = placed(build_model(run, data), device, layout)
    beside: list = [moving_average(model, run.train.ema)] if run.train.ema is not None else []
    if accelerator.num_processes > 1:
        beside.append([torch.empty_like(p) for p in model.parameters()])
    autocast = cast(Autocast, accelerator.autocast)  # its argument is declared without the None it has
    step = training_step(model, build_optimizer(model, run.train), autocast, min(parts, 2))
    images = torch.zeros(run.train.batch_size // run.processes // parts, *data.image_shape, device=device)
    for _ in range(2):  # the optimiser's state is there from the second on
        step(images.contiguous(memory_format=layout))
