"""Which implementation the operators run on."""

from __future__ import annotations

import importlib
from functools import lru_cache
from types import ModuleType

import torch
from torch import Tensor

from metric_zoo.errors import MetricZooError, suggest
from metric_zoo.ops.backends.native import library
from metric_zoo.ops.backends.triton import INTERPRETED
from metric_zoo.ops.choice import Chosen, chosen

BACKENDS = ("native", "triton", "torch")
_DEVICES = {"native": "cpu", "triton": "cpu" if INTERPRETED else "cuda"}


class use_backend(Chosen):
    """Choose the backend for all operators of this process; as a context manager, until the block ends.

    A block is that of its thread or asyncio task alone: others, threads that start in it among them, go by what was
    chosen for the process. So call it plainly for layers that `torch.nn.DataParallel` runs, or that a GPU's backward
    pass recomputes from checkpoints. A plain call within a block counts there until the block ends, too. The backward
    pass of an operator runs on the backend that its forward pass ran on; what was compiled is compiled anew for another
    choice.

    Without a choice the CPU gets ``"native"`` (C++) where this installation has it, and everything else ``"torch"``
    (grid_sample and a product), which runs everywhere and is differentiable any number of times. ``"triton"`` (CUDA)
    has to be chosen.

    Args:
        name: one of the above, or None for the default.

    Raises:
        MetricZooError: for an unknown name, or a backend that this installation does not have.

    Example:
        >>> import metric_zoo as mz
        >>> with mz.ops.use_backend("torch"):
        ...     mz.ops.backend()
        'torch'
    """

    def __init__(self, name: str | None) -> None:
        if name is not None and name not in BACKENDS:
            raise MetricZooError(f"unknown backend {name!r}{suggest(name, BACKENDS)}; known: {BACKENDS}")
        why = "" if name is None else why_unavailable(name)
        if why:
            raise MetricZooError(f"backend {name!r} is not available: {why}")
        super().__init__(name)


def why_unavailable(name: str) -> str:
    """What a backend lacks here; empty where nothing is."""
    if name == "native":
        return library.why_unavailable()
    return _why_no_triton() if name == "triton" else ""


@lru_cache(maxsize=1)
def _why_no_triton() -> str:
    try:
        importlib.import_module("triton")
    except ImportError as error:
        return f"the package triton does not load: {error}"
    if INTERPRETED:
        return ""
    if not torch.cuda.is_available():
        return "there is no CUDA device (TRITON_INTERPRET=1 runs it on CPU, slowly)"
    if torch.version.hip is None and torch.cuda.get_device_capability() < (8, 0):
        return "it needs a CUDA device of compute capability 8.0 or higher"
    return ""


def backend(device: str = "cpu") -> str:
    """The name of the backend that runs on a device: ``"native"``, ``"triton"`` or ``"torch"``.

    Args:
        device: its type, such as ``"cpu"`` or ``"cuda"``.
    """
    name = chosen()
    if name is not None:
        return name
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


def kernels_for(input: Tensor) -> ModuleType:
    """The ``forward`` and ``backward`` of the fused backend for a tensor: whoever calls the operator itself, as an
    exported graph does, gets the one that its device has."""
    triton = input.device.type == "cuda" or (INTERPRETED and chosen() == "triton")
    return importlib.import_module("metric_zoo.ops.backends.triton.launch") if triton else library
