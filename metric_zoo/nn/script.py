"""What TorchScript is told, which compiles none of these layers."""

from __future__ import annotations

from typing import NoReturn

from torch import nn

from metric_zoo.errors import MetricZooError


def refuse_script(layer: nn.Module) -> NoReturn:
    """For ``__prepare_scriptable__``, where `torch.jit.script` asks what to compile; it would fail later, and say less.

    Raises:
        MetricZooError: always.
    """
    raise MetricZooError(
        f"torch.jit.script cannot compile {type(layer).__name__}: use torch.jit.trace, torch.export or torch.compile"
    )
