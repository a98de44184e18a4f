"""The figures of a record that one process measures alone, while the others wait."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from metric_zoo.benchmarks import measure
from metric_zoo.benchmarks.data.splits import ImageSet
from metric_zoo.benchmarks.log import RunLog
from metric_zoo.benchmarks.memory_fit import largest_batch
from metric_zoo.benchmarks.model import LAYOUTS
from metric_zoo.benchmarks.optimization import build_optimizer
from metric_zoo.benchmarks.recipe_sections import DTYPES
from metric_zoo.benchmarks.runs import Run
from metric_zoo.benchmarks.schema import Throughput


def measured(run: Run, device: torch.device, model: nn.Module, data: ImageSet, log: RunLog) -> dict[str, Any]:
    """Fields of a record, by name. It ends with training steps.

    A figure that cannot be had (memory, often) is missing, and the log says why.

    Args:
        run: says how to measure.
        device: of the model.
        model: trained.
        data: items are ``(image (C, H, W), label)``; the first images are what is measured on.
        log: of the run.
    """
    figures = _Figures(run, device, model, data)
    found = {}
    for name in (
        "gflops",
        "inference",
        "single",
        "inference_largest",
        "activation_memory_mib",
        "training",
        "training_single",
        "training_largest",
    ):
        try:
            found |= getattr(figures, name)()
        except Exception as error:
            log.failure(error)
    return found


class _Figures:
    """Every method yields fields of a record."""

    def __init__(self, run: Run, device: torch.device, model: nn.Module, data: ImageSet) -> None:
        self._run, self._model, self._data, self._device = run, model, data, device
        self._images = self._batch(run.measure.batch_size)

    def gflops(self) -> dict[str, Any]:
        return {"gflops": measure.gflops(self._model, self._images[:1])}

    def inference(self) -> dict[str, Any]:
        return {"inference": self._throughput(self._inference_step(), self._images)}

    def single(self) -> dict[str, Any]:
        timed = measure.timed(self._inference_step(), self._batch(1), self._run.measure)
        single = throughput_of(timed, 1, self._run, self._model)
        return {"inference_single": single, "latency_ms": measure.latency(timed)}

    def inference_largest(self) -> dict[str, Any]:
        return {"inference_largest": self._largest(self._inference_step())}

    def activation_memory_mib(self) -> dict[str, Any]:
        return {"activation_memory_mib": measure.activation_memory_mib(self._model, self._images)}

    def training(self) -> dict[str, Any]:
        return {"training": self._throughput(self._training_step(), self._images)}

    def training_single(self) -> dict[str, Any]:
        return {"training_single": self._throughput(self._training_step(), self._batch(1))}

    def training_largest(self) -> dict[str, Any]:
        return {"training_largest": self._largest(self._training_step())}

    def _inference_step(self) -> Callable[[Tensor], None]:
        return measure.inference_step(self._model)

    def _training_step(self) -> Callable[[Tensor], None]:
        return measure.training_step(self._model, build_optimizer(self._model, self._run.train))

    def _throughput(self, step: Callable[[Tensor], None], images: Tensor) -> Throughput:
        return throughput_of(measure.timed(step, images, self._run.measure), len(images), self._run, self._model)

    def _largest(self, step: Callable[[Tensor], None]) -> Throughput | None:
        """On a GPU: a CPU's memory is another's business, too, and no batch is fast there for being large."""
        if self._device.type == "cpu" or not self._run.learner.runs_on_device:
            return None
        tile = self._batch(1)
        count = largest_batch(lambda images: step(_repeated(tile, images)), self._run.measure.largest_batch_size)
        return None if count is None else self._throughput(step, _repeated(tile, count))

    def _batch(self, count: int) -> Tensor:
        return first_images(self._data, count, self._device, LAYOUTS[self._run.train.layout])


def _repeated(image: Tensor, count: int) -> Tensor:
    """One image ``(1, C, H, W)`` so many times, in its memory format."""
    return torch.cat([image] * count)


def first_images(data: ImageSet, count: int, device: torch.device, layout: torch.memory_format) -> Tensor:
    """``(B, C, H, W)``: the first ``count`` images of a data set, again and again if it has fewer."""
    rows = [data[i % len(data)][0] for i in range(count)]
    return torch.stack(rows).to(device).contiguous(memory_format=layout)


def autocast_of(run: Run, device: torch.device) -> AbstractContextManager:
    """For one forward pass in a run's precision."""
    dtype = getattr(torch, DTYPES[run.train.precision])
    return torch.autocast(device.type, dtype, enabled=dtype != torch.float32)


def throughput_of(timed: measure.Timed, batch_size: int, run: Run, model: nn.Module) -> Throughput:
    """Of steps of a run's model."""
    return measure.throughput(
        timed, batch_size, DTYPES[run.train.precision], run.train.layout, measure.is_compiled(model)
    )
