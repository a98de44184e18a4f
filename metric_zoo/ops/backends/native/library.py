"""The compiled library: where it lies, whether it is this version's, and which instruction set it uses."""

from __future__ import annotations

import ctypes
import os
from ctypes import POINTER, c_char_p, c_int, c_int64, c_void_p
from pathlib import Path

import torch

from metric_zoo.errors import MetricZooError
from metric_zoo.ops.backends.native import structs

ISAS = ("baseline", "avx2", "avx512")
TYPES = {torch.float32: "float32", torch.float64: "float64"}
_NAME = "libmetric_zoo"
_INTERFACE = 5
_OVERRIDE = "METRIC_ZOO_LIBRARY"
_OUT_OF_MEMORY = 1


def _find() -> Path | None:
    if _OVERRIDE in os.environ:  # another build of it, as `make sanitize` makes
        return Path(os.environ[_OVERRIDE]).resolve()
    return next(iter(sorted(Path(__file__).parent.glob(f"{_NAME}.*"))), None)


def _load() -> tuple[ctypes.CDLL | None, str]:
    """The library, or why there is none.

    Raises:
        MetricZooError: if a library that was asked for does not load.
    """
    path = _find()
    if path is None:
        return None, "it was not compiled when metric-zoo was installed (a C++17 compiler is needed)"
    library, why = _open(path)
    if library is None and _OVERRIDE in os.environ:
        raise MetricZooError(f"{_OVERRIDE}: {why}")
    return library, why


def _open(path: Path) -> tuple[ctypes.CDLL | None, str]:
    try:
        library = ctypes.CDLL(str(path))
        # Of other versions even the functions may be others: nothing else is called before this.
        if library.metric_zoo_interface() != _INTERFACE:
            return None, f"{path.name} is from another version of metric-zoo: install it again"
        library.metric_zoo_layout.restype = c_char_p
        difference = structs.first_difference(library.metric_zoo_layout().decode().split("\n"))
        if difference:
            return None, f"{path.name} was compiled from other sources ({difference}): install metric-zoo again"
        _declare(library)
    except (OSError, AttributeError) as error:
        return None, f"{path.name} does not load: {error}"
    return library, ""


def _declare(library: ctypes.CDLL) -> None:
    for name in TYPES.values():
        call = (POINTER(structs.Problem), POINTER(structs.Tensors))
        for function, arguments, result in (
            ("forward", call, c_int),
            ("backward", call, c_int),
            ("stencil", (POINTER(structs.Stencil), *4 * [c_void_p]), c_int),
            ("transpose", (c_void_p, c_void_p, c_int64, c_int64, c_int64, c_int), None),
        ):
            declared = getattr(library, f"metric_zoo_{function}_{name}")
            declared.argtypes, declared.restype = arguments, result


# torch is imported above: the library then shares its pool of threads.
_LIBRARY, _WHY = _load()


def is_available() -> bool:
    """Whether the library was compiled and loads."""
    return not _WHY


def why_unavailable() -> str:
    """What is the matter; empty where nothing is."""
    return _WHY


def call(function: str, dtype: torch.dtype, *arguments) -> None:
    """A function of the library for a dtype of `TYPES`.

    Raises:
        MemoryError: if the library gets too little.
    """
    status = getattr(_LIBRARY, f"metric_zoo_{function}_{TYPES[dtype]}")(*arguments)
    if status == _OUT_OF_MEMORY:
        raise MemoryError(f"sampled convolution, {function}: out of memory")


def limit_isa(name: str | None = None) -> str:
    """Use at most this instruction set; None leaves the limit.

    Returns:
        The one in use: the processor's best within the limit.

    Raises:
        MetricZooError: for an unknown name.
    """
    if name is not None and name not in ISAS:
        raise MetricZooError(f"unknown instruction set {name!r}; known: {ISAS}")
    assert _LIBRARY is not None, _WHY
    return ISAS[_LIBRARY.metric_zoo_limit_isa(-1 if name is None else ISAS.index(name))]


if is_available() and "METRIC_ZOO_ISA" in os.environ:
    limit_isa(os.environ["METRIC_ZOO_ISA"])
