"""Nested states of optimisers and the like, as safetensors and JSON: nothing that is read can run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from metric_zoo.files import check_regular

_PLAIN = (bool, int, float, str, type(None))


def write_state(folder: Path, name: str, state: Any) -> None:
    """Write ``name.safetensors``, all tensors, and ``name.json``, where they belong and everything else.

    Args:
        folder: of both files.
        name: of the part.
        state: dicts, lists and tuples, however nested, of tensors, arrays, numbers, words and None.

    Raises:
        TypeError: for anything else in it; OSError or SafetensorError if it cannot be written.
    """
    tensors: dict[str, Tensor] = {}
    tree = _encoded(state, "", tensors)
    safetensors.torch.save_file(tensors, folder / f"{name}.safetensors")
    (folder / f"{name}.json").write_text(json.dumps(tree), encoding="utf-8")


def read_state(folder: Path, name: str) -> Any:
    """What `write_state` was given, on the CPU, bit for bit and with the same layout; arrays have become tensors.

    Raises:
        OSError, SafetensorError, ValueError, KeyError, TypeError, IndexError, RecursionError, RuntimeError: if it is
            missing or damaged.
    """
    structure, tensors = (folder / f"{name}.{suffix}" for suffix in ("json", "safetensors"))
    for path in (structure, tensors):
        check_regular(path)
    tree = json.loads(structure.read_text(encoding="utf-8"))  # a state may hold infinity, which `read_json` refuses
    return _decoded(tree, safetensors.torch.load(tensors.read_bytes()))


def _encoded(state: Any, place: str, tensors: dict[str, Tensor]) -> Any:
    if isinstance(state, _PLAIN):
        return state
    if isinstance(state, (Tensor, np.ndarray, np.generic)):
        return _stored(torch.as_tensor(state), place, tensors)
    if isinstance(state, dict):
        return {"dict": [[key, _encoded(value, f"{place}.{key}", tensors)] for key, value in state.items()]}
    if isinstance(state, (list, tuple)):
        parts = [_encoded(value, f"{place}.{number}", tensors) for number, value in enumerate(state)]
        return {"list" if isinstance(state, list) else "tuple": parts}
    raise TypeError(f"{place.lstrip('.')} is a {type(state).__name__}, which no checkpoint keeps")


def _stored(tensor: Tensor, place: str, tensors: dict[str, Tensor]) -> dict[str, Any]:
    """Its dimensions in the order of memory, so that the layout comes back: other loops round otherwise."""
    name = place.lstrip(".")
    while name in tensors:
        name += "'"
    order = sorted(range(tensor.dim()), key=lambda d: -tensor.stride(d))
    tensors[name] = tensor.detach().permute(order).cpu().clone(memory_format=torch.contiguous_format)
    return {"tensor": name, "order": order}


def _decoded(tree: Any, tensors: dict[str, Tensor]) -> Any:
    if not isinstance(tree, dict):
        if isinstance(tree, _PLAIN):
            return tree
        raise ValueError(f"a {type(tree).__name__} where a value was expected")
    if "tensor" in tree:
        tensor, order = tensors[tree["tensor"]], tree["order"]
        return tensor.permute(sorted(range(len(order)), key=order.__getitem__))
    ((kind, parts),) = tree.items()
    if kind == "dict":
        return {key: _decoded(value, tensors) for key, value in parts}
    return {"list": list, "tuple": tuple}[kind](_decoded(part, tensors) for part in parts)
