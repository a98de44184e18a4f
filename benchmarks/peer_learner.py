"""A peer among those that learn."""

from __future__ import annotations

from accelerate import Accelerator
from torch import nn

from metric_zoo.benchmarks.data.splits import Splits
from metric_zoo.benchmarks.learning import Learning
from metric_zoo.benchmarks.model import build_model
from metric_zoo.benchmarks.peers import tune
from metric_zoo.benchmarks.runs import Run
from metric_zoo.benchmarks.schema import Epoch
from metric_zoo.benchmarks.training_state import Progress


class Tuner(Learning):
    """It has no epochs; its strength is tuned."""

    def __init__(self, run: Run, accelerator: Accelerator, splits: Splits) -> None:
        super().__init__(run, accelerator)
        self._splits, self.progress = splits, Progress()
        self._model = build_model(run, splits.info).to(accelerator.device).eval()

    @property
    def plain(self) -> nn.Module:
        return self._model

    @property
    def scored(self) -> nn.Module:
        return self._model

    def train(self) -> list[Epoch]:
        tune(self._model, self._splits.train_clean)
        return []

    def forget(self) -> None:
        """There is nothing to."""
