"""Implementations of the operators, with one face: `metric_zoo.ops.backends.base.Backend`."""

from metric_zoo.ops.backends.base import Backend
from metric_zoo.ops.backends.native.backend import Native
from metric_zoo.ops.backends.torch import Torch
from metric_zoo.ops.backends.triton.backend import Triton

COMPOSED = Torch()
"""The one that runs everywhere."""

BACKENDS: dict[str, Backend] = {backend.name: backend for backend in (Native(), Triton(), COMPOSED)}
"""By their names; of several that could serve, the first does."""
