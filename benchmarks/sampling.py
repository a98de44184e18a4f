"""Whether a run's network samples sensibly: what its record says of it, and what its log warns of."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn

from metric_zoo.benchmarks.data.splits import ImageSet
from metric_zoo.benchmarks.log import RunLog
from metric_zoo.benchmarks.model import LAYOUTS
from metric_zoo.benchmarks.run_measurements import first_images
from metric_zoo.benchmarks.runs import Run
from metric_zoo.benchmarks.schema import Sampling
from metric_zoo.nn.health import LayerHealth, SamplingHealth, health_during, named_layers
from metric_zoo.text import size

_MOST, _MOST_IN_A_LOOK = 2**22, 2**18
"""Samples of a layer that are measured."""
_IMAGES_IN_A_LOOK = 8
_PATIENCE = 50
"""Times as long as a look took must have passed before the next: it costs 2 % at most."""


def health_of(
    model: nn.Module, run: Run, accelerator: Accelerator, images: ImageSet, count: int, most: int
) -> SamplingHealth:
    """Of a network without wrappers, on the first images of a split, in the run's precision. One process can do it
    alone, and draws no random number."""
    device = accelerator.device
    with torch.random.fork_rng([device] if device.type == "cuda" else []), accelerator.autocast():
        batch = first_images(images, min(count, len(images)), device, LAYOUTS[run.train.layout])
        return health_during(model, lambda: model(batch), most)


def sampling(model: nn.Module, run: Run, accelerator: Accelerator, test: ImageSet, log: RunLog) -> dict[str, Any]:
    """The record's field; none where nothing is sampled, or the log says why it cannot be had.

    Args:
        model: that was scored.
        test: whose first images are looked at, as many as throughput is measured with.
    """
    if not named_layers(model):
        return {}
    try:
        health = health_of(model, run, accelerator, test, run.measure.batch_size, _MOST)
        figures = {name: getattr(health, name) for name in ("mean", "p99", "maximum", "outside", "never_moved")}
        return {"sampling": Sampling(layers=len(health.layers), **figures)}
    except Exception as error:  # whatever becomes of it, the run's other figures are there
        log.failure(error)
        return {}


class SamplingWatch:
    """Looks at a network's sampling between epochs, in the main process, and warns once of every layer that fails.

    Args:
        model: that trains, without wrappers.
        run: says how.
        accelerator: of it.
        test: whose first images are looked at.
        log: for the warnings.
    """

    def __init__(self, model: nn.Module, run: Run, accelerator: Accelerator, test: ImageSet, log: RunLog) -> None:
        self._model, self._run, self._accelerator, self._test, self._log = model, run, accelerator, test, log
        self._told: set[tuple[str, str]] = set()
        self._active = accelerator.is_main_process and bool(named_layers(model))
        self._took, self._last = 0.0, time.monotonic()

    def look(self, epoch: int) -> None:
        """After so many epochs; if the last look is long enough ago, or this is the last one."""
        start = time.monotonic()
        due = start - self._last > _PATIENCE * self._took or epoch == self._run.train.epochs
        if not self._active or not due:
            return
        try:
            self._warn(epoch)
        except Exception as error:  # no reason for a run to end
            self._log.failure(error)
            self._active = False
        self._last = time.monotonic()
        self._took = self._last - start

    def _warn(self, epoch: int) -> None:
        count = min(_IMAGES_IN_A_LOOK, self._run.train.batch_size)
        health = health_of(self._model, self._run, self._accelerator, self._test, count, _MOST_IN_A_LOOK)
        for name, layer in health.layers.items():
            for problem, words in self._problems(layer):
                if (name, problem) not in self._told:
                    self._told.add((name, problem))
                    self._log.write(f"warning after epoch {epoch}: {name} ({layer.kind}) {words}")

    def _problems(self, layer: LayerHealth) -> Iterator[tuple[str, str]]:
        if layer.passes_image:
            far = f"reads up to {layer.maximum:.3g} px from its grid, of an input of {size(layer.input_size)} px"
            yield "far", f"{far}: lower train.head_lr_scale, or bound what it predicts (max_offset, limit) where it can"
        if layer.is_stuck and self._run.train.head_lr_scale:
            yield "stuck", "has not moved a sample since the run began, though its sampling is trained"
