"""What the ``triton`` backend says of itself. Its kernels are loaded by the first call: they need triton."""

from __future__ import annotations

import importlib
from functools import lru_cache
from types import ModuleType

import torch
from torch import Tensor

from metric_zoo.ops.backends.base import Backend, Gradients
from metric_zoo.ops.backends.triton import DTYPES, INTERPRETED


class Triton(Backend):
    """Fused kernels for CUDA; triton's interpreter runs them on CPU."""

    name = "triton"
    device = "cpu" if INTERPRETED else "cuda"
    dtypes = DTYPES
    by_default = False

    def why_unavailable(self) -> str:
        return _why_unavailable()

    def forward(self, *arguments) -> Tensor:
        return _kernels().forward(*arguments)

    def backward(self, *arguments) -> Gradients:
        return _kernels().backward(*arguments)

    def forward_blended(self, *arguments) -> Tensor:
        return _kernels().forward_blended(*arguments)


def _kernels() -> ModuleType:
    return importlib.import_module("metric_zoo.ops.backends.triton.launch")


@lru_cache(maxsize=1)
def _why_unavailable() -> str:
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
