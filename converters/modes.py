"""Evaluation mode for a while, and one thread at a time for what threads share."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

SHARED = threading.RLock()
"""Held where the process's state is changed for a while: random numbers, cuDNN's flags, filters of warnings, and what
`torch.fx` puts in the place of a module's call. Two such whiles that overlap would end with the wrong one's state."""


@contextmanager
def evaluation(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; every module's own mode comes back afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes:
            module.training = mode
