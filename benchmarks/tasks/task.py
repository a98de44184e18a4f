"""What a run trains for: its data, its loss, its scores."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from accelerate import Accelerator
from torch import Tensor, nn

from metric_zoo.benchmarks.data import Splits
from metric_zoo.benchmarks.recipe import Run
from metric_zoo.benchmarks.record import Fidelity, Scores


@dataclass(frozen=True)
class Evaluation:
    """Scores of a split; for a classification and every image, in order, whether its top-1 answer was right."""

    scores: Scores | Fidelity
    hits: np.ndarray | None = None


class Task(ABC):
    """Everything that tells one task's training from another's."""

    corruptible: ClassVar[bool] = False
    """Whether test images may be changed to see how robust a network is."""

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

    @abstractmethod
    def error(self, scores: Any) -> float:
        """What a search for a learning rate minimises."""

    @abstractmethod
    def gap(self, train: Any, test: Any) -> float:
        """The generalization gap."""

    def training(self, right: float) -> dict[str, float]:
        """Fields of a record's epoch beside the loss, from the share of right answers while training."""
        return {}

    @abstractmethod
    def testing(self, scores: Any) -> dict[str, float]:
        """Fields of a record's epoch, from the test split's scores."""
