"""Models whose parameters are spread over processes: all take part in saving, one writes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from metric_zoo.errors import ConversionError
from metric_zoo.zoo.unwrap import is_sharded


def mesh_of(state: dict[str, Tensor]) -> Any:
    """The device mesh of a sharded model; None if every process has all of it."""
    return next((value.device_mesh for value in state.values() if is_sharded(value)), None)


def writes(mesh: Any) -> bool:
    """Whether this process writes: the first of the mesh."""
    return mesh is None or not any(mesh.get_coordinate())


def gather(state: dict[str, Tensor], mesh: Any) -> dict[str, Tensor]:
    """Whole tensors, where this process writes; the others help, and get none.

    Tensors that are whole already stay where they are; parts of a larger storage are copied out of it.
    """
    whole = {}
    for key, value in state.items():
        full = value.full_tensor().cpu() if is_sharded(value) else value
        if writes(mesh):
            whole[key] = full if full.untyped_storage().nbytes() == full.nbytes else full.clone()
    return whole


@contextmanager
def together(mesh: Any) -> Iterator[None]:
    """All processes of a mesh leave the block after the one that writes, with its error if it failed.

    Raises:
        ConversionError: that of the block, everywhere.
    """
    failure = None
    try:
        yield
    except ConversionError as error:
        failure = str(error)
    failure = _tell(failure, mesh) if mesh is not None else failure
    if failure is not None:
        raise ConversionError(failure)


def _tell(message: str | None, mesh: Any) -> str | None:
    """Along one dimension of the mesh after the other, from its first process to all."""
    from torch import distributed

    held = [message]
    for dimension in range(mesh.ndim):
        group = mesh.get_group(dimension)
        distributed.broadcast_object_list(held, src=distributed.get_global_rank(group, 0), group=group)
    return held[0]
