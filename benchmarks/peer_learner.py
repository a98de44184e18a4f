"""A peer in a trainer's place."""

from __future__ import annotations

from accelerate import Accelerator
from torch import nn
from torch.utils.data import Dataset

from metric_zoo.benchmarks.data import Splits
from metric_zoo.benchmarks.model import build_model
from metric_zoo.benchmarks.peers import tune
from metric_zoo.benchmarks.recipe import Run
from metric_zoo.benchmarks.record import Epoch
from metric_zoo.benchmarks.tasks import Evaluation, get_task
from metric_zoo.benchmarks.train import Progress, evaluation_loader


class Tuner:
    """What `metric_zoo.benchmarks.train.Trainer` is to a network: a peer has no epochs, its strength is tuned."""

    micro_batches = None

    def __init__(self, run: Run, accelerator: Accelerator, splits: Splits) -> None:
        self.run, self.accelerator, self._splits = run, accelerator, splits
        self.plain: nn.Module = build_model(run, splits.info).to(accelerator.device).eval()
        self.progress = Progress()

    @property
    def scored(self) -> nn.Module:
        return self.plain

    def train(self) -> list[Epoch]:
        tune(self.plain, self._splits.train_clean)
        return []

    def evaluate(self, dataset: Dataset) -> Evaluation:
        loader = evaluation_loader(dataset, self.run, self.accelerator)
        batch_size = self.run.train.batch_size
        return get_task(self.run.task).evaluate(self.accelerator, self.plain, loader, len(dataset), batch_size)

    def forget(self) -> None:
        """There is nothing to."""
