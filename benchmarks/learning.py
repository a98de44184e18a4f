"""The learning of a run, whatever it is of, up to its scores."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from accelerate import Accelerator
from torch import nn
from torch.utils.data import DataLoader

from metric_zoo.benchmarks.data.splits import ImageSet
from metric_zoo.benchmarks.loading import evaluation_loader
from metric_zoo.benchmarks.runs import Run
from metric_zoo.benchmarks.schema import Epoch
from metric_zoo.benchmarks.tasks import get_task
from metric_zoo.benchmarks.tasks.training import Evaluation

if TYPE_CHECKING:
    from metric_zoo.benchmarks.training_state import Progress


class Learning(ABC):
    """Of one run, in every process that takes part.

    Attributes:
        micro_batches: in how many parts a process computes its share of a step; None where there are no steps.
        progress: how far it is; its seconds are those of processes before this one.
    """

    micro_batches: int | None = None
    progress: Progress

    def __init__(self, run: Run, accelerator: Accelerator) -> None:
        self.run, self.accelerator, self.task = run, accelerator, get_task(run.task)
        self._scoring = self.task.training()

    @property
    @abstractmethod
    def plain(self) -> nn.Module:
        """The module without wrappers."""

    @property
    @abstractmethod
    def scored(self) -> nn.Module:
        """The module to evaluate."""

    @abstractmethod
    def train(self) -> list[Epoch]:
        """All that is left to learn."""

    @abstractmethod
    def forget(self) -> None:
        """Remove what was kept to go on from: the record is written."""

    def evaluate(self, dataset: ImageSet) -> Evaluation:
        """Score a data set by `scored`."""
        return self._evaluate(self._loader_of(dataset), len(dataset))

    def _loader_of(self, dataset: ImageSet) -> DataLoader:
        return evaluation_loader(dataset, self.run, self.accelerator, self.micro_batches or 1)

    def _evaluate(self, loader: DataLoader, size: int) -> Evaluation:
        return self._scoring.evaluate(self.accelerator, self.scored, loader, size, self.run.train.batch_size)
