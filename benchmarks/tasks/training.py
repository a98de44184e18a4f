"""The part of a task that needs torch: its data, its loss, its evaluation."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from accelerate import Accelerator
from torch import Tensor, nn

from metric_zoo.benchmarks.data.splits import ImageSet, Splits
from metric_zoo.benchmarks.runs import Run
from metric_zoo.benchmarks.schema import SplitScores
from metric_zoo.benchmarks.tasks.corruptions import Corrupted

if TYPE_CHECKING:
    from metric_zoo.explain.prepare import Look


@dataclass(frozen=True)
class Evaluation:
    """Scores of a split; where answers are right or wrong, also which, for every image in order."""

    scores: SplitScores
    hits: np.ndarray | None = None


class TaskTraining(ABC):
    """Everything that tells one task's training from another's."""

    @abstractmethod
    def load(self, run: Run) -> Splits:
        """The run's data.

        Raises:
            DataError: for an unknown name, or data that are not where they should be.
        """

    @abstractmethod
    def loss(self, output: Any, target: Tensor) -> Tensor:
        """What is minimised: the mean over a network's answers to a batch."""

    def right(self, output: Any, target: Tensor) -> int | Tensor:
        """How many answers are right, where that can be said."""
        return 0

    @abstractmethod
    def evaluate(
        self, accelerator: Accelerator, model: nn.Module, loader: Iterable, size: int, batch_size: int
    ) -> Evaluation:
        """Score a split in evaluation mode, each image exactly once however many processes share the work.

        Args:
            size: images in the split; a different count is an error, not a figure.
            batch_size: of the training.
        """

    def evaluation_batch(self, run: Run, parts: int) -> int:
        """Images scored at once, on all processes: what training holds, in so many parts, scoring holds, too."""
        return run.train.batch_size // parts

    def corrupted(self, dataset: ImageSet, name: str) -> ImageSet:
        """Test images after one of the task's corruptions."""
        return Corrupted(dataset, name)

    def look(self, run: Run, size: int, channels: int) -> Look:
        """How a picture of so many pixels a side and channels becomes an input: its pixels in [0, 1], as they are."""
        from metric_zoo.explain.prepare import Look

        return Look(size, channels, (0.0,) * channels, (1.0,) * channels)
