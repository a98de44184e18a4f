"""A bar for whoever waits."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.module import register_module_forward_hook
from tqdm import tqdm

PATIENCE = 2.0
"""Seconds without a bar."""


@contextmanager
def progress(model: nn.Module, doing: str) -> Iterator[None]:
    """Show on stderr, once the block takes longer than `PATIENCE`, how many convolutions have run.

    There is no total: how often a model runs depends on what is found.
    """
    what = f"{doing} {type(model).__name__}"
    own = threading.get_ident()
    with tqdm(desc=what, unit=" convolutions run", delay=PATIENCE, mininterval=0.5, leave=False) as bar:

        def count(module: nn.Module, *_: Any) -> None:
            if isinstance(module, _ConvNd) and threading.get_ident() == own:
                bar.update()

        # For all modules: copies of the model run as well.
        handle = register_module_forward_hook(count)
        try:
            yield
        finally:
            handle.remove()
