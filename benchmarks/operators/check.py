"""Whether a device computes what the formulas say: every kind and shape class against float64 on CPU."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor
from tqdm import tqdm

from metric_zoo import ops
from metric_zoo.benchmarks.operators.calls import OPERATORS, Blend, Call

SHAPES: dict[str, dict[str, Any]] = {
    "dense": {"channels": 48, "out_channels": 40, "size": (17, 13), "channels_last": True},
    "large": {"channels": 64, "out_channels": 128, "size": (28, 28)},
    "strided": {"channels": 20, "size": (15, 16), "stride": (2, 1), "dilation": (1, 2), "padding": ((2, 1), (0, 2))},
    "fields": {"channels": 48, "out_channels": 24, "fields": 3},
    "grouped": {"channels": 48, "out_channels": 32, "groups": 4, "fields": 2},
    "depthwise": {"channels": 70, "out_channels": 70, "groups": 70, "kernel": (5, 5), "padding": ((2, 2), (2, 2))},
    "one channel": {"channels": 1, "out_channels": 1, "kernel": (7, 7), "padding": ((3, 3), (3, 3)), "size": (40, 40)},
}
"""Options of `Call` that a kernel may get wrong by itself."""
BLENDS = {
    "one axis": Blend(),
    "two axes": Blend(grid=(3, 4), samples=24, channels=20),
    "one channel": Blend((9,), 24, 1, 1, (40, 40)),
}
BLENDED = "blended"
"""The kind of `BLENDS`."""
POSITIONS = ("field", "coordinates", "offsets")
"""Leaves that say where samples lie."""

# Relative errors ||found - true|| / ||true||: a few roundings of the type whose products are summed in float32.
TOLERANCES = {"float32": 1e-5, "tf32": 2e-3, "float16": 2e-3, "bfloat16": 1.6e-2}
ALL_KINDS = ("float32", "bfloat16")
"""The types in which every kind is checked; the others differ by nothing but rounding."""
WIDE = tuple(name for name, operator in OPERATORS.items() if operator.thorough)
"""The kinds that meet every shape, each in one of the types above."""
KINKS = 500
CUDA_ONLY = ("tf32", "bfloat16")
"""What triton's interpreter does not know: its product of bfloat16 matrices multiplies their bits."""


def cases(device: torch.device) -> list[tuple[str, str, str]]:
    """Kind, shape class and type of every check. Each costs a GPU seconds of compiling, so that not every kind meets
    every shape there: kinds differ in where they sample, shapes in what is done with it."""
    types = [dtype for dtype in TOLERANCES if dtype not in CUDA_ONLY or device.type == "cuda"]
    first = next(iter(SHAPES))
    found = [(kind, first, dtype) for dtype in types if dtype in ALL_KINDS for kind in OPERATORS]
    found += [(kind, shape, dtype) for kind, dtype in zip(WIDE, ALL_KINDS, strict=True) for shape in SHAPES]
    found += [(WIDE[0], first, dtype) for dtype in types]
    found += [(BLENDED, shape, "float32") for shape in BLENDS] + [(BLENDED, next(iter(BLENDS)), "float16")]
    return [case for case in dict.fromkeys(found) if case[2] in types]


def checks(device: torch.device, todo: list[tuple[str, str, str]]) -> Iterator[dict[str, Any]]:
    """One result for each of ``todo``: the relative errors of output and gradients, of the backend in use."""
    for kind, shape, dtype in tqdm(todo, desc="checks", unit="check"):
        errors = relative_errors(call_of(kind, shape), device, dtype)
        passed = max(errors.values()) <= TOLERANCES[dtype]  # NaN does not
        yield {"kind": kind, "shape": shape, "dtype": dtype, "errors": errors, "passed": passed}


def call_of(kind: str, shape: str) -> Call | Blend:
    """The call that a check makes."""
    return BLENDS[shape] if kind == BLENDED else Call(kind=kind, **SHAPES[shape])


def relative_errors(call: Call | Blend, device: torch.device, dtype: str) -> dict[str, float]:
    """Of the output and of every gradient, against the torch backend in float64 on CPU with the same numbers."""
    kind = torch.float32 if dtype == "tf32" else getattr(torch, dtype)
    leaves = {name: tensor.to(kind) for name, tensor in call.leaves().items()}
    with tf32(dtype == "tf32"):
        found = call.outcome_of({name: tensor.to(device) for name, tensor in leaves.items()})
    with ops.use_backend("torch"):
        true = call.outcome_of({name: tensor.double() for name, tensor in leaves.items()})
    return {name: _relative(found[name].double().cpu(), true[name], name in POSITIONS) for name in true}


def is_repeatable(call: Call, device: torch.device) -> bool:
    """Whether `torch.use_deterministic_algorithms` gives the same bits twice."""
    leaves = {name: tensor.to(device) for name, tensor in replace(call, batch=4).leaves().items()}
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        first, second = call.outcome_of(leaves), call.outcome_of(leaves)
    finally:
        torch.use_deterministic_algorithms(before)
    return all(torch.equal(first[name], second[name]) for name in first)


def _relative(found: Tensor, true: Tensor, has_kinks: bool) -> float:
    """Where rounding puts a sample on the other side of a pixel's middle, the derivative by its position jumps: of the
    field's gradient, one number in 500 does not count."""
    difference = (found - true).abs().flatten().sort().values
    if has_kinks:
        difference = difference[: len(difference) - math.ceil(len(difference) / KINKS)]
    return (difference.norm() / true.norm()).item()


@contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """Whether convolutions may round float32 operands to TF32."""
    settings = cast(Any, torch.backends.cudnn).conv  # torch sets it at run time
    before = settings.fp32_precision
    settings.fp32_precision = "tf32" if allowed else "ieee"
    try:
        yield
    finally:
        settings.fp32_precision = before
