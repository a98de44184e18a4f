"""Whether a module's own code calls `torchvision.ops.deform_conv2d`, from what that code names.

Code is read, not run: what it finds too much costs nothing but a look at every operation, and what it misses (a
function kept in a container, or made by `exec`) stays torchvision's. Modules that a module calls answer for themselves.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from functools import partial
from types import BuiltinMethodType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

from torch import nn
from torch._ops import OpOverload, OpOverloadPacket

_NAME = "deform_conv2d"
_SOURCE = "torchvision.ops.deform_conv"
_MMCV_FUNCTION = re.compile(r"(Modulated)?DeformConv(2d)?Function")
_PASSED_BY = ("torch", "metric_zoo", "numpy", "builtins")
"""Packages whose code is not followed."""


def calls_torchvision(module: nn.Module) -> bool:
    """Whether the module's ``forward``, a method or function that it uses, or an attribute comes to that operator."""
    return any(
        function.__module__ == _SOURCE or any(map(_is_operator, values)) or _names_operator(code, values)
        for function, code, values in _reached(module)
    )


def calls_of_mmcv(module: nn.Module) -> str:
    """The function of mmcv's compiled part that the module calls by itself, as a name; empty for none."""
    values = (value for _, _, found in _reached(module) for value in found)
    methods = (value for value in values if isinstance(value, (MethodType, BuiltinMethodType)))
    names = (getattr(method.__self__, "__name__", "") for method in methods if method.__name__ == "apply")
    return next((name for name in names if _MMCV_FUNCTION.fullmatch(name)), "")


def _reached(module: nn.Module) -> Iterator[tuple[FunctionType, CodeType, list[Any]]]:
    """Every function that the module's forward may come to, with its code and what the names there stand for."""
    pending = [*_functions([*vars(module).values()]), *_methods(type(module), "forward")]
    seen: set[FunctionType] = set()
    while pending:
        function = pending.pop()
        if function in seen or _package(function) in _PASSED_BY:
            continue
        seen.add(function)
        for code in _codes(function.__code__):
            values = _values(function, code)
            yield function, code, values
            pending += _functions(values)
            pending += [method for name in code.co_names for method in _methods(type(module), name)]


def _package(function: FunctionType) -> str:
    return (function.__module__ or "").partition(".")[0]


def _methods(cls: type, name: str) -> Iterator[FunctionType]:
    """Of this name, in every class of which an object's code may mean it: ``super()`` calls an inherited one."""
    for base in cls.__mro__:
        yield from _functions([vars(base).get(name)])


def _functions(values: list[Any]) -> Iterator[FunctionType]:
    """Those among values, out of what is wrapped around them."""
    for value in values:
        if isinstance(value, property):
            value = value.fget
        while isinstance(value, (partial, MethodType, staticmethod, classmethod)):
            value = value.func if isinstance(value, partial) else value.__func__
        if isinstance(value, FunctionType):
            yield value
            wrapped = inspect.unwrap(value)
            if isinstance(wrapped, FunctionType):
                yield wrapped


def _codes(code: CodeType) -> Iterator[CodeType]:
    """With those of the functions within: lambdas, comprehensions."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)


def _values(function: FunctionType, code: CodeType) -> list[Any]:
    """What the code's names stand for, as far as they are the file's, the enclosing function's, or defaults."""
    known = {name: function.__globals__[name] for name in code.co_names if name in function.__globals__}
    cells = [cell.cell_contents for cell in function.__closure__ or () if _is_filled(cell)]
    return [*known.values(), *cells, *(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]


def _is_filled(cell: Any) -> bool:
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return False
    return True


def _is_operator(value: Any) -> bool:
    return isinstance(value, (OpOverload, OpOverloadPacket)) and str(value).startswith(f"torchvision.{_NAME}")


def _names_operator(code: CodeType, values: list[Any]) -> bool:
    """``torchvision.ops.deform_conv2d``, whatever name the library has, or ``torch.ops.torchvision.deform_conv2d``."""
    if _NAME not in code.co_names:
        return False
    libraries = [value.__name__ for value in values if isinstance(value, ModuleType)]
    return any(name.partition(".")[0] == "torchvision" for name in (*libraries, *code.co_names))
