"""What a public function has settled for the operator in which it ends: the backend, and where the windows lie.

Whoever finds the operator in an exported graph may call it with anything: what was settled holds for the very arguments
that it was settled for.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from metric_zoo.ops.backends import Backend
from metric_zoo.ops.window import Window


class Settled(NamedTuple):
    """For one call of an operator."""

    backend: Backend
    window: Window | None = None


_thread = threading.local()


def run(operator: Callable, arguments: tuple, backend: Backend, window: Window | None = None) -> Any:
    """Call an operator; in a program that is compiled, the operator alone is recorded."""
    if torch.compiler.is_compiling():
        return operator(*arguments)
    outer = getattr(_thread, "call", None)
    _thread.call = (arguments, Settled(backend, window))
    try:
        return operator(*arguments)
    finally:
        _thread.call = outer


def settled(*arguments) -> Settled | None:
    """What was settled for a call with these arguments; None for one that comes from elsewhere."""
    ours, result = getattr(_thread, "call", None) or ((), None)
    if len(ours) != len(arguments):
        return None
    for one, other in zip(ours, arguments, strict=True):
        # Tensors are the same or others; of lists the framework hands on copies.
        if one is not other and (isinstance(one, torch.Tensor) or one != other):
            return None
    return result
