"""Classification: cross-entropy, top-1 and top-5 accuracy, calibration, and which images were right."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import Tensor, nn

from metric_zoo.benchmarks.data import Splits, load_data
from metric_zoo.benchmarks.recipe import Run
from metric_zoo.benchmarks.record import Scores
from metric_zoo.benchmarks.tasks.gather import scored
from metric_zoo.benchmarks.tasks.task import Evaluation, Task

CALIBRATION_BINS = 15


class Classification(Task):
    """Cross-entropy; the generalization gap is training minus test top-1 accuracy, as a share."""

    corruptible = True

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

    def error(self, scores: Scores) -> float:
        return scores.loss

    def gap(self, train: Scores, test: Scores) -> float:
        return train.top1 - test.top1

    def training(self, right: float) -> dict[str, float]:
        return {"train_top1": right}

    def testing(self, scores: Scores) -> dict[str, float]:
        return {"test_top1": scores.top1}


def logits_of(output: Any) -> Tensor:
    """The main logits ``(B, classes)``; some networks return auxiliary ones beside them while training."""
    if isinstance(output, Tensor):
        return output
    return output.logits if hasattr(output, "logits") else output[0]


def hits(logits: Tensor, labels: Tensor, k: int) -> Tensor:
    """Whether the label is among the k largest logits, ``(B,)`` bool."""
    return (logits.topk(min(k, logits.shape[1]), dim=1).indices == labels[:, None]).any(1)


def evaluate(accelerator: Accelerator, model: nn.Module, loader: Iterable, size: int) -> Evaluation:
    """`Classification.evaluate`."""

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
