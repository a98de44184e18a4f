"""What of the task needs torch."""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from metric_zoo.benchmarks.data.splits import Splits
from metric_zoo.benchmarks.runs import Run
from metric_zoo.benchmarks.schema import DatasetInfo
from metric_zoo.benchmarks.tasks.gather import scored
from metric_zoo.benchmarks.tasks.training import Evaluation, TaskTraining
from tests.end_to_end.brightness import NAME, Errors


def images(count: int, seed: int) -> TensorDataset:
    """Noise around a grey ``(count, 1, 8, 8)``, and its mean."""
    generator = torch.Generator().manual_seed(seed)
    grey = torch.rand(count, 1, 1, 1, generator=generator)
    pictures = (grey + 0.1 * torch.randn(count, 1, 8, 8, generator=generator)).clamp(0, 1)
    return TensorDataset(pictures, pictures.mean((1, 2, 3)))


class Training(TaskTraining):
    """Of networks with one answer for an image."""

    def load(self, run: Run) -> Splits:
        train, test = images(64, 0), images(32, 1)
        shape = {"train_size": 64, "test_size": 32, "classes": 1, "image_shape": (1, 8, 8)}
        return Splits(train, train, test, DatasetInfo(name=NAME, fingerprint="64 and 32", **shape))

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        return F.l1_loss(output[:, 0].float(), target)

    def evaluate(
        self, accelerator: Accelerator, model: nn.Module, loader: Iterable, size: int, batch_size: int
    ) -> Evaluation:
        def row(output: Tensor, target: Tensor) -> Tensor:
            return (output[:, :1].float() - target[:, None]).abs().clamp_max(1)

        errors = scored(accelerator, model, loader, size, row)
        return Evaluation(Errors(mae=errors.mean().item(), worst=errors.max().item(), images=size))
