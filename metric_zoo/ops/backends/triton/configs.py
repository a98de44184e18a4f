"""Block sizes of the kernels: candidates that a GPU is measured with, and one that is taken without measuring."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import triton

Blocks = Mapping[str, int]

# Few: every one costs seconds of compiling when a kind and dtype are first used on a machine. In bfloat16 and for
# compute capability 9.0 the compiler spills no registers of the dense forward kernel and up to 504 bytes of the others;
# in float32 more. What exceeds a GPU's shared memory is passed over when blocks are measured.
# (BLOCK_M, BLOCK_N, BLOCK_K, warps, stages)
_DENSE = [
    (128, 256, 64, 8, 2),
    (128, 128, 64, 8, 3),
    (128, 128, 32, 8, 4),
    (64, 64, 64, 4, 3),
    (64, 64, 32, 4, 4),
    (32, 32, 32, 2, 4),
]
# (BLOCK_M, BLOCK_K, BLOCK_O, COLUMNS, TILE, warps, stages)
_SAMPLES = [
    (64, 64, 64, 8, 16, 8, 2),
    (64, 32, 64, 8, 16, 8, 2),
    (64, 64, 64, 0, 0, 8, 2),
    (32, 64, 64, 0, 0, 8, 2),
    (32, 32, 64, 0, 0, 4, 2),
]
# (BLOCK_M, BLOCK_N, BLOCK_K, warps, stages)
_WEIGHT = [
    (64, 256, 64, 8, 2),
    (64, 128, 64, 8, 3),
    (64, 64, 64, 4, 3),
    (32, 64, 32, 4, 4),
]
# (BLOCK_M, BLOCK_N, warps)
_DEPTHWISE = [(128, 16, 4), (64, 32, 4), (32, 64, 4), (16, 128, 4), (256, 1, 4), (256, 4, 4)]
_SAMPLES_DEPTHWISE = [(64, 32, 0, 0, 4), (32, 64, 0, 0, 4), (128, 16, 0, 0, 4), (256, 1, 0, 0, 4), (64, 32, 8, 16, 8)]

_FIXED: dict[str, dict[str, int]] = {
    "forward_dense": {"BLOCK_M": 64, "BLOCK_N": 64, "BLOCK_K": 32},
    "forward_depthwise": {"BLOCK_M": 64, "BLOCK_N": 16},
    "backward_samples": {"BLOCK_M": 64, "BLOCK_K": 32, "BLOCK_O": 32, "COLUMNS": 0, "TILE": 0},
    "backward_samples_depthwise": {"BLOCK_M": 64, "BLOCK_K": 16, "BLOCK_O": 16, "COLUMNS": 0, "TILE": 0},
    "backward_weight_dense": {"BLOCK_M": 32, "BLOCK_N": 64, "BLOCK_K": 32},
    "backward_weight_depthwise": {"BLOCK_M": 64, "BLOCK_N": 16},
}
OWNED: Blocks = {"BLOCK_M": 64, "BLOCK_K": 32, "BLOCK_O": 32, "COLUMNS": 8, "TILE": 8}
"""Of the kernel that is repeatable; nothing is measured there, since measuring may choose differently each time."""


def fixed(name: str) -> dict[str, int]:
    """Blocks of a kernel that suit most shapes."""
    return dict(_FIXED[name])


def tiled(name: str) -> dict[str, int]:
    """As `fixed`, with gradients to the input gathered in tiles."""
    return {**fixed(name), **({"BLOCK_M": 64, "COLUMNS": 8, "TILE": 16} if name.startswith("backward_samples") else {})}


def _dense(rows: list[tuple[int, ...]]) -> list[triton.Config]:
    return [
        triton.Config({"BLOCK_M": m, "BLOCK_N": n, "BLOCK_K": k}, num_warps=warps, num_stages=stages)
        for m, n, k, warps, stages in rows
    ]


def _samples(rows: list[tuple[int, ...]]) -> list[triton.Config]:
    names = ("BLOCK_M", "BLOCK_K", "BLOCK_O", "COLUMNS", "TILE")
    return [
        triton.Config(dict(zip(names, blocks, strict=True)), num_warps=warps, num_stages=stages)
        for *blocks, warps, stages in rows
    ]


def _depthwise() -> list[triton.Config]:
    return [triton.Config({"BLOCK_M": m, "BLOCK_N": n}, num_warps=warps) for m, n, warps in _DEPTHWISE]


def candidates(name: str) -> list[triton.Config]:
    """What a kernel is measured with."""
    if name == "backward_samples":
        return _samples(_SAMPLES)
    if name == "backward_samples_depthwise":
        return _samples([(m, k, 16, columns, tile, warps, 2) for m, k, columns, tile, warps in _SAMPLES_DEPTHWISE])
    if name in ("forward_depthwise", "backward_weight_depthwise"):
        return _depthwise()
    return _dense(_DENSE if name == "forward_dense" else _WEIGHT)


def prune(configs: list[triton.Config], arguments: dict[str, Any], **_: object) -> list[triton.Config]:
    """Leave out blocks of which most would be empty."""
    p = arguments["p"]
    limits = {
        "BLOCK_N": p.outputs if p.per_group > 1 else p.per_field * p.outputs,
        "BLOCK_K": p.run,
        "BLOCK_O": p.outputs,
    }

    def fits(config: triton.Config) -> bool:
        return all(config.kwargs.get(name, 0) <= max(2 * size - 1, 32) for name, size in limits.items())

    return [config for config in configs if fits(config)] or configs[-1:]
