"""Which implementation the operators run on."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from metric_zoo.errors import MetricZooError, suggest
from metric_zoo.ops.backends import BACKENDS, COMPOSED, Backend
from metric_zoo.ops.choice import Chosen, chosen


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
        if name is not None:
            _check_available(name)
        super().__init__(name)


def _check_available(name: str) -> None:
    known = tuple(BACKENDS)
    if name not in known:
        raise MetricZooError(f"unknown backend {name!r}{suggest(name, known)}; known: {known}")
    why = BACKENDS[name].why_unavailable()
    if why:
        raise MetricZooError(f"backend {name!r} is not available: {why}")


def backend(device: str = "cpu") -> str:
    """The name of the backend that runs on a device: ``"native"``, ``"triton"`` or ``"torch"``.

    Args:
        device: its type, such as ``"cpu"`` or ``"cuda"``.
    """
    return _in_use(device).name


def _in_use(device: str) -> Backend:
    name = chosen()
    return _default(device) if name is None else BACKENDS[name]


def _default(device: str) -> Backend:
    for backend in BACKENDS.values():
        if backend.by_default and backend.runs_on(device):
            return backend
    return COMPOSED


def _is_transformed() -> bool:
    """Whether a transform of `torch.func` is at work, which a custom operator cannot follow (its gradient raises, its
    forward derivative is silently zero): the framework's own operations compose with them."""
    return not torch.compiler.is_compiling() and torch._C._are_functorch_transforms_active()


def backend_for(input: Tensor) -> Backend:
    """The backend for an operator's input. Under the transforms of `torch.func` it is always ``"torch"``.

    Raises:
        MetricZooError: if the backend chosen by `use_backend` does not run on the input's device.
    """
    device = input.device.type
    if device == "meta" or _is_transformed():  # shapes alone, or a function of torch.func
        return COMPOSED
    backend = _in_use(device)
    if backend.device not in (None, device):
        raise MetricZooError(
            f"input is on {input.device}, and use_backend({backend.name!r}) was called, which runs on "
            f"{backend.device}: move the model or call use_backend(None)"
        )
    return backend


def backend_of_operator(input: Tensor, able: Callable[[Backend], bool] = lambda _: True) -> Backend:
    """For whoever calls the operator itself, as an exported graph does: the backend in use, or one that its device has.

    Args:
        input: of the operator.
        able: whether a backend has what is asked for, where not all do.

    Raises:
        MetricZooError: if none has.
    """
    device = input.device.type
    for backend in (_in_use(device), *BACKENDS.values()):
        if backend.runs_on(device) and able(backend):
            return backend
    raise MetricZooError(
        f"no backend on {device} has this gradient as an operator of its own: differentiate the public function "
        "(metric_zoo.ops), which finds another way"
    )
