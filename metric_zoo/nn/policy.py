"""Which convolutions are worth converting to a layer that samples adaptively."""

from __future__ import annotations

from typing import Any

MIN_INPUT_SIDE = 8
"""Pixels. Below this a window covers most of the map and there is little to adapt to."""


def unwanted(node: Any, explicit: bool) -> str:
    """Why a convolution is left alone: as of `metric_zoo.nn.kind.Kind.unwanted`."""
    if max(node.kernel) == 1:
        return "1x1 kernel: one sample, nothing to spread"
    return "" if explicit else _unpromising(node)


def _unpromising(node: Any) -> str:
    if node.calls == 0:
        return "not called in evaluation"
    if node.patchify:
        return "patch embedding: stride equals kernel"
    if node.stem:
        return "stem: the first convolution"
    side = min(node.input_shape[-2:])
    return f"input of {side} px, below {MIN_INPUT_SIDE}" if side < MIN_INPUT_SIDE else ""
