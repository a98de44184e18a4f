"""Figures of every image of a split, from however many processes."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from accelerate import Accelerator
from torch import Tensor, nn


@torch.no_grad()
def scored(
    accelerator: Accelerator, model: nn.Module, loader: Iterable, size: int, row: Callable[[Tensor, Tensor], Tensor]
) -> Tensor:
    """``(size, F)`` float64 on the CPU: what ``row`` says of each image, in the split's order, in evaluation mode.

    Args:
        loader: yields this process's share, ``(inputs, targets)``.
        size: images in the split; a different count is an error, not a figure.
        row: from a batch's inputs and targets to ``(B, F)``.
    """
    model.eval()
    gathered = []
    for inputs, targets in loader:
        with accelerator.autocast():
            found = row(inputs, targets)
        gathered.append(accelerator.gather_for_metrics(found).double().cpu())
    rows = torch.cat(gathered)
    if len(rows) != size:
        raise RuntimeError(f"evaluated {len(rows)} images of a split of {size}: the processes' shares are wrong")
    return rows
