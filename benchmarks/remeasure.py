"""Measure the speed of trained networks again, in turns: what was timed at other moments compares badly."""

from __future__ import annotations

import math
import sys
from functools import partial
from pathlib import Path

import torch

from metric_zoo.benchmarks import measure
from metric_zoo.benchmarks.collect import replace_record
from metric_zoo.benchmarks.measure import Timed
from metric_zoo.benchmarks.model import LAYOUTS, placed
from metric_zoo.benchmarks.optimization import build_optimizer
from metric_zoo.benchmarks.provenance import Clock, provenance
from metric_zoo.benchmarks.recipe_sections import MeasureConfig
from metric_zoo.benchmarks.record_files import read_record, readable
from metric_zoo.benchmarks.run_measurements import autocast_of, first_images, throughput_of
from metric_zoo.benchmarks.schema import SPEEDS
from metric_zoo.benchmarks.tasks import get_task
from metric_zoo.benchmarks.weights import run_of, trained_model
from metric_zoo.errors import DataError, MetricZooError, RecordError
from metric_zoo.files import prepare_folder

FIGURES = ("inference", "inference_single", "training", "training_single")
"""What is measured again, of a record that has it."""


def remeasure(records: list[Path], rounds: int = 5, cpu: bool = False, data_root: str | None = None) -> int:
    """Time inference, single images and training of every record's network, in turns; the records get the figures.

    Each record's own recipe says with how many images, how often and how long; every round takes its share.

    Args:
        records: files of runs that kept their weights, on the device that this machine has.
        rounds: in which every network has its turn.
        cpu: the runs were on a CPU, do not look for a GPU.
        data_root: where the data lie; records do not say.

    Returns:
        How many records: those that cannot be read are left out, with a note.

    Raises:
        RecordError: for a record that is missing or without weights; MetricZooError for one of another device, or in a
            folder that takes no files, DataError for missing data. All are looked at before the first is timed, and
            written after the last.
    """
    if rounds < 1:
        raise MetricZooError(f"rounds={rounds}, expected at least 1")
    records = [entry.path for entry in readable(records)]
    if not records:
        raise RecordError("there is no record to measure again")
    for folder in {path.parent for path in records}:
        prepare_folder(folder)
    clock = Clock()
    device = torch.device("cuda" if not cpu and torch.cuda.is_available() else "cpu")
    networks = [_Network(path, device, data_root) for path in records]
    for figure in FIGURES:
        for number in range(rounds):
            for network in networks:
                network.time(figure, rounds)
            print(f"{figure}: round {number + 1} of {rounds}", file=sys.stderr, flush=True)
    for network in networks:
        network.write(clock)
    return len(networks)


class _Network:
    """One record's, with the times so far."""

    def __init__(self, path: Path, device: torch.device, data_root: str | None) -> None:
        self._path, self._device, self._record = path, device, read_record(path)
        here = torch.cuda.get_device_name() if device.type == "cuda" else "cpu"
        if self._record.device != here:
            raise MetricZooError(f"{path} is of a run on {self._record.device!r}, this machine offers {here!r}")
        self._model, self._run = trained_model(path), run_of(self._record)
        if self._run.train.compile:
            self._model.compile()
        here = self._run.data.model_copy(update={"root": data_root})
        splits = get_task(self._run.task).training().load(self._run.model_copy(update={"data": here}))
        assert self._record.dataset is not None, "the run went well"
        if splits.info.fingerprint != self._record.dataset.fingerprint:
            raise DataError(
                f"{path} is of other data than those that {self._run.data.name!r} names here, or is older than "
                "fingerprints of contents"
            )
        layout = LAYOUTS[self._run.train.layout]
        self._images = first_images(splits.train_clean, self._run.measure.batch_size, device, layout)
        self._timed = {figure: Timed([], 0.0) for figure in FIGURES if getattr(self._record, figure)}

    def time(self, figure: str, rounds: int) -> None:
        """One round's share of a figure; the network is on the device for it alone."""
        if figure not in self._timed:
            return
        config, so_far = self._share(rounds), self._timed[figure]
        model = placed(self._model, self._device, LAYOUTS[self._run.train.layout])
        images = self._images[: self._count(figure)].clone()
        autocast = partial(autocast_of, self._run, self._device)
        if figure.startswith("training"):
            step = measure.training_step(model, build_optimizer(model, self._run.train), autocast)
        else:
            step = measure.inference_step(model, autocast)
        timed = measure.timed(step, images, config)
        model.cpu()
        joules = None if timed.joules is None or so_far.joules is None else so_far.joules + timed.joules
        self._timed[figure] = Timed(so_far.seconds + timed.seconds, joules)

    def _count(self, figure: str) -> int:
        return 1 if figure.endswith("single") else len(self._images)

    def _share(self, rounds: int) -> MeasureConfig:
        config = self._run.measure
        share = {"repeats": max(3, math.ceil(config.repeats / rounds)), "seconds": config.seconds / rounds}
        return config.model_copy(update=share)

    def write(self, clock: Clock) -> None:
        """The record, with the new figures and where they are from."""
        changes = dict.fromkeys(SPEEDS)  # what is not measured again would stand beside figures of another moment
        for figure, timed in self._timed.items():
            changes[figure] = throughput_of(timed, self._count(figure), self._run, self._model)
        single = self._timed.get("inference_single")
        changes["latency_ms"] = measure.latency(single) if single else None
        changes["timing"] = provenance(clock)
        replace_record(self._path, self._record.model_copy(update=changes))
