"""Figures of every image of a split, from however many processes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, cast

import torch
from accelerate import Accelerator
from torch import Tensor, nn


@torch.no_grad()
def scored(
    accelerator: Accelerator, model: nn.Module, loader: Iterable, size: int, row: Callable[[Any, Tensor], Tensor]
) -> Tensor:
    """``(size, F)`` float64 on the CPU: what ``row`` says of each image, in the split's order, in evaluation mode.

    The network computes in the accelerator's precision, its scores in float32.

    Args:
        loader: yields this process's share, ``(inputs, targets)``.
        size: images in the split; a different count is an error, not a figure.
        row: from a network's answers and the targets to ``(B, F)``.

    Raises:
        FloatingPointError: if a figure is not finite.
    """
    model.eval()
    gathered = []
    for inputs, targets in loader:
        with accelerator.autocast():
            output = model(inputs)
        found = row(output, targets)
        gathered.append(cast(Tensor, accelerator.gather_for_metrics(found)).double().cpu())
    rows = torch.cat(gathered)
    if len(rows) != size:
        raise RuntimeError(f"evaluated {len(rows)} images of a split of {size}: the processes' shares are wrong")
    if not bool(rows.isfinite().all()):
        raise FloatingPointError("the network's answers are not finite: lower train.lr")
    return rows
