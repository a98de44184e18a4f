"""Cross-entropy, top-1 and top-5 accuracy, calibration, and which images were right."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import Tensor, nn

from metric_zoo.benchmarks.data import Splits, load_data
from metric_zoo.benchmarks.data.splits import TensorImages
from metric_zoo.benchmarks.runs import Run
from metric_zoo.benchmarks.tasks.answers import logits_of
from metric_zoo.benchmarks.tasks.classification import Scores
from metric_zoo.benchmarks.tasks.gather import scored
from metric_zoo.benchmarks.tasks.training import Evaluation, TaskTraining

CALIBRATION_BINS = 15

if TYPE_CHECKING:
    from metric_zoo.explain.prepare import Look


class Training(TaskTraining):
    """Of networks whose answers are logits ``(B, classes)``."""

    def load(self, run: Run) -> Splits:
        return load_data(run.data)

    def loss(self, output: Any, target: Tensor) -> Tensor:
        return F.cross_entropy(logits_of(output).float(), target)

    def right(self, output: Any, target: Tensor) -> Tensor:
        return hits(logits_of(output).detach(), target, 1).sum()

    def evaluate(
        self, accelerator: Accelerator, model: nn.Module, loader: Iterable, size: int, batch_size: int = 0
    ) -> Evaluation:
        return evaluate(accelerator, model, loader, size)

    def evaluation_batch(self, run: Run, parts: int) -> int:
        return 256

    def look(self, run: Run, size: int, channels: int) -> Look:
        """Normalised as the training images: by their own statistics, where they are held in memory."""
        from metric_zoo.explain.prepare import Look

        if run.data.name in ("folder", "huggingface"):
            return Look(size, channels, (0.5,) * channels, (0.5,) * channels)
        images = self.load(run).test
        assert isinstance(images, TensorImages)
        return Look(size, channels, tuple(images.mean.flatten().tolist()), tuple(images.std.flatten().tolist()))


def hits(logits: Tensor, labels: Tensor, k: int) -> Tensor:
    """Whether the label is among the k largest logits, ``(B,)`` bool."""
    return (logits.topk(min(k, logits.shape[1]), dim=1).indices == labels[:, None]).any(1)


def evaluate(accelerator: Accelerator, model: nn.Module, loader: Iterable, size: int) -> Evaluation:
    """`Training.evaluate`."""

    def row(output: Any, labels: Tensor) -> Tensor:
        logits = logits_of(output).float()
        return torch.stack(
            (
                hits(logits, labels, 1).float(),
                hits(logits, labels, 5).float(),
                F.cross_entropy(logits, labels, reduction="none"),
                logits.softmax(1).amax(1),
            ),
            dim=1,
        )

    top1, top5, loss, confidence = scored(accelerator, model, loader, size, row).unbind(1)
    scores = Scores(
        top1=top1.mean().item(),
        top5=top5.mean().item(),
        loss=loss.mean().item(),
        calibration_error=calibration_error(confidence, top1),
        images=size,
    )
    return Evaluation(scores, top1.bool().numpy())


def calibration_error(confidence: Tensor, correct: Tensor) -> float:
    """Expected calibration error over 15 equal bins of confidence (Guo et al., ICML 2017, equation 3).

    Args:
        confidence: ``(N,)`` largest probability of each answer, in [0, 1].
        correct: ``(N,)`` 1 where that answer was right, else 0.
    """
    bins = (confidence * CALIBRATION_BINS).ceil().clamp(1, CALIBRATION_BINS).long() - 1
    sums = torch.zeros(CALIBRATION_BINS, dtype=torch.float64)
    sums.index_add_(0, bins, (correct - confidence).double())
    return min(1.0, (sums.abs().sum() / len(confidence)).item())
