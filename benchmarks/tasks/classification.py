"""Classification: cross-entropy, top-1 and top-5 accuracy."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import Tensor, nn

from metric_zoo.benchmarks.record import Scores


def logits_of(output: Any) -> Tensor:
    """The main logits ``(B, classes)``; some networks return auxiliary ones beside them while training."""
    if isinstance(output, Tensor):
        return output
    return output.logits if hasattr(output, "logits") else output[0]


def hits(logits: Tensor, labels: Tensor, k: int) -> Tensor:
    """Whether the label is among the k largest logits, ``(B,)`` bool."""
    return (logits.topk(min(k, logits.shape[1]), dim=1).indices == labels[:, None]).any(1)


@torch.no_grad()
def evaluate(accelerator: Accelerator, model: nn.Module, loader: Iterable, size: int) -> Scores:
    """Score a split in evaluation mode, each image exactly once however many processes share the work.

    Args:
        size: images in the split; a different count is an error, not a figure.
    """
    model.eval()
    sums = torch.zeros(4, dtype=torch.float64)
    for images, labels in loader:
        logits = logits_of(model(images)).float()
        rows = torch.stack(
            (
                hits(logits, labels, 1).float(),
                hits(logits, labels, 5).float(),
                F.cross_entropy(logits, labels, reduction="none"),
                torch.ones_like(labels, dtype=torch.float32),
            ),
            dim=1,
        )
        sums += accelerator.gather_for_metrics(rows).double().sum(0).cpu()
    top1, top5, loss, images_seen = sums.tolist()
    if int(images_seen) != size:
        raise RuntimeError(f"evaluated {int(images_seen)} images of a split of {size}: the processes' shares are wrong")
    return Scores(top1=top1 / size, top5=top5 / size, loss=loss / size, images=size)
