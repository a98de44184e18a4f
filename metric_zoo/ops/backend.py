"""Which implementation the operators run on."""

from __future__ import annotations

import torch
from torch import Tensor

from metric_zoo.errors import MetricZooError, suggest
from metric_zoo.ops.native import library

BACKENDS = ("native", "torch")
_DEVICES = {"native": "cpu"}
_chosen: str | None = None


class use_backend:
    """Choose the backend for all operators of this process; as a context manager, until the block ends.

    Without a choice every device gets its fastest: ``"native"`` (C++) on CPU, where this installation has it, and
    ``"torch"`` (grid_sample and a product), which runs everywhere and is differentiable any number of times.

    Args:
        name: one of the above, or None for the default.

    Raises:
        MetricZooError: for an unknown name, or a backend that this installation does not have.

    Example:
        >>> with use_backend("torch"):
        ...     backend()
        'torch'
    """

    def __init__(self, name: str | None) -> None:
        global _chosen
        if name is not None and name not in BACKENDS:
            raise MetricZooError(f"unknown backend {name!r}{suggest(name, BACKENDS)}; known: {BACKENDS}")
        if name == "native" and not library.is_available():
            raise MetricZooError(f"backend 'native' is not available: {library.why_unavailable()}")
        self._before, _chosen = _chosen, name

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        global _chosen
        _chosen = self._before


def backend(device: str = "cpu") -> str:
    """The name of the backend that runs on a device: ``"native"`` or ``"torch"``.

    Args:
        device: its type, such as ``"cpu"`` or ``"cuda"``.
    """
    if _chosen is not None:
        return _chosen
    return "native" if device == "cpu" and library.is_available() else "torch"


def _is_transformed() -> bool:
    """Whether a transform of `torch.func` is at work, which a custom operator cannot follow (its gradient raises, its
    forward derivative is silently zero): the torch backend composes with them."""
    return not torch.compiler.is_compiling() and torch._C._are_functorch_transforms_active()


def backend_for(input: Tensor) -> str:
    """The backend for an operator's input. Under the transforms of `torch.func` it is always ``"torch"``.

    Raises:
        MetricZooError: if the backend chosen by `use_backend` does not run on the input's device.
    """
    device = input.device.type
    if device == "meta" or _is_transformed():  # shapes alone, or a function of torch.func
        return "torch"
    name = backend(device)
    if device != _DEVICES.get(name, device):
        raise MetricZooError(
            f"input is on {input.device}, and use_backend({name!r}) was called, which runs on {_DEVICES[name]}: "
            "move the model or call use_backend(None)"
        )
    return name
