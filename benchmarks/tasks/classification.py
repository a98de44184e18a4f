"""Classification: cross-entropy, top-1 and top-5 accuracy, calibration, and which images were right."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import Tensor, nn

from metric_zoo.benchmarks.record import Scores

CALIBRATION_BINS = 15


def logits_of(output: Any) -> Tensor:
    """The main logits ``(B, classes)``; some networks return auxiliary ones beside them while training."""
    if isinstance(output, Tensor):
        return output
    return output.logits if hasattr(output, "logits") else output[0]


def hits(logits: Tensor, labels: Tensor, k: int) -> Tensor:
    """Whether the label is among the k largest logits, ``(B,)`` bool."""
    return (logits.topk(min(k, logits.shape[1]), dim=1).indices == labels[:, None]).any(1)


@dataclass(frozen=True)
class Evaluation:
    """Scores of a split, and for every image, in the split's order, whether its top-1 answer was right."""

    scores: Scores
    hits: np.ndarray


@torch.no_grad()
def evaluate(accelerator: Accelerator, model: nn.Module, loader: Iterable, size: int) -> Evaluation:
    """Score a split in evaluation mode, each image exactly once however many processes share the work.

    Args:
        size: images in the split; a different count is an error, not a figure.
    """
    model.eval()
    gathered = []
    for images, labels in loader:
        with accelerator.autocast():
            logits = logits_of(model(images)).float()
        rows = torch.stack(
            (
                hits(logits, labels, 1).float(),
                hits(logits, labels, 5).float(),
                F.cross_entropy(logits, labels, reduction="none"),
                logits.softmax(1).amax(1),
            ),
            dim=1,
        )
        gathered.append(accelerator.gather_for_metrics(rows).double().cpu())
    rows = torch.cat(gathered)
    if len(rows) != size:
        raise RuntimeError(f"evaluated {len(rows)} images of a split of {size}: the processes' shares are wrong")
    top1, top5, loss, confidence = rows.unbind(1)
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
