"""Which images make up which step, for every process: the same whatever was interrupted or shared out."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch.utils.data import Sampler

from metric_zoo.benchmarks.data.seeds import mixed_seed


class TrainingBatches(Sampler[list[int]]):
    """The micro-batches of one process: its parts of every step's global batch.

    The images of a step follow from seed, epoch and step alone. The last images of an epoch that fill no global batch
    are left out of it.

    Args:
        size: images in the data set.
        batch_size: global, divisible by ``processes * accumulate``.
        seed: of the run.
        process, processes: which one this is, of how many.
        accumulate: micro-batches of a step on each process.
    """

    def __init__(self, size: int, batch_size: int, seed: int, process: int, processes: int, accumulate: int) -> None:
        self._size, self._batch_size, self._seed = size, batch_size, seed
        self._parts, self._process, self._accumulate = processes * accumulate, process, accumulate
        self.steps = size // batch_size
        """Of an epoch."""
        self._epoch = self._first_step = 0

    def set_position(self, epoch: int, first_step: int) -> None:
        """Which epoch to draw next, from which step on."""
        self._epoch, self._first_step = epoch, first_step

    def __len__(self) -> int:
        return (self.steps - self._first_step) * self._accumulate

    def __iter__(self) -> Iterator[list[int]]:
        generator = torch.Generator().manual_seed(mixed_seed(self._seed, self._epoch))
        order = torch.randperm(self._size, generator=generator).tolist()
        part = self._batch_size // self._parts
        for step in range(self._first_step, self.steps):
            for micro in range(self._accumulate):
                first = step * self._batch_size + (self._process * self._accumulate + micro) * part
                yield order[first : first + part]
