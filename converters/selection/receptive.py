"""Receptive fields, from a trace."""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import fx, nn

_POOLS = (F.max_pool2d, F.avg_pool2d, torch.max_pool2d)
_RESIZING = (nn.Upsample, nn.PixelShuffle, nn.PixelUnshuffle, nn.ConvTranspose2d, nn.Fold, nn.Unfold)
_RESIZING_FUNCTIONS = (F.interpolate, F.pixel_shuffle, F.pixel_unshuffle, F.grid_sample)
_Field = tuple[int, int] | None


def receptive_fields(graph: fx.GraphModule) -> dict[str, int]:
    """Pixels of the image, a side, that one output pixel of each convolution sees.

    The usual recursion over kernels, strides and dilations: r' = r + (k - 1) d j, j' = j s, the largest branch counting
    where branches meet (Araujo, Norris, Sim, *Computing Receptive Fields of Convolutional Neural Networks*, Distill
    2019). Global pooling and attention by functions see everything and are left out, as that would say the same of all
    that follows. Behind an operation that resizes otherwise the field is unknown, and the convolution is missing.
    """
    modules = dict(graph.named_modules())
    fields: dict[fx.Node, _Field] = {}
    found: dict[str, int] = {}
    for node in graph.graph.nodes:
        parents = [fields[parent] for parent in node.all_input_nodes]
        known = [parent for parent in parents if parent is not None]
        before = None if len(known) < len(parents) else max(known, default=(1, 1))
        module = modules.get(node.target) if node.op == "call_module" else None
        fields[node] = after = _after(node, module, before)
        if isinstance(module, nn.Conv2d) and after is not None:
            found[node.target] = max(after[0], found.get(node.target, 0))
    return found


def _after(node: fx.Node, module: nn.Module | None, before: _Field) -> _Field:
    """(field, distance of neighbours in pixels of the image) behind a node; None if it is unknown."""
    resizes = isinstance(module, _RESIZING) or node.target in _RESIZING_FUNCTIONS
    if before is None or resizes:
        return None
    window = _window(node, module)
    if window is None:
        return before
    (field, jump), (kernel, stride, dilation) = before, map(_longer, window)
    return field + (kernel - 1) * dilation * jump, jump * stride


def _window(node: fx.Node, module: nn.Module | None) -> tuple[Any, Any, Any] | None:
    """(kernel, stride, dilation) of what reads windows, or None."""
    if isinstance(module, (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d)):
        return module.kernel_size, module.stride, getattr(module, "dilation", 1)
    if "BlurPool" in type(module).__name__:
        blur = cast(Any, module)  # of timm, which need not be there
        return getattr(blur, "filt_size", 1), blur.stride, 1
    if node.op == "call_function" and node.target in _POOLS:
        given = {**dict(zip(("input", "kernel_size", "stride"), node.args, strict=False)), **node.kwargs}
        return given["kernel_size"], given.get("stride") or given["kernel_size"], 1
    return None


def _longer(value: int | tuple[int, ...]) -> int:
    return value if isinstance(value, int) else max(value)
