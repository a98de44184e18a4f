"""What the deformable layers of torchvision and mmcv compute, on this project's operator.

Deformable ConvNets (ICCV 2017, https://arxiv.org/abs/1703.06211) and v2 (CVPR 2019, https://arxiv.org/abs/1811.11168),
as published in `torchvision.ops.DeformConv2d` and in https://github.com/open-mmlab/mmcv (``mmcv/ops/deform_conv.py``,
``modulated_deform_conv.py``). Arguments have their names there: they may be passed by name. Each has the layer first;
``then`` is called with what the operator takes, the layer, input, offset and mask.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from metric_zoo.geometry.sampling import grid_offsets
from metric_zoo.nn.field import Field
from metric_zoo.nn.rule import Reading, SamplingRule, is_zero
from metric_zoo.ops.deform import deform_conv2d, groups_of
from metric_zoo.ops.window import check_window

Then = Callable[[Any, Tensor, Tensor, "Tensor | None"], Any]


def convolved(layer: Any, input: Tensor, offset: Tensor, mask: Tensor | None) -> Tensor:
    """The layer's output."""
    bias = getattr(layer, "bias", None)  # mmcv's first version has none
    return deform_conv2d(input, offset, layer.weight, bias, layer.stride, layer.padding, layer.dilation, mask)


def reading(layer: Any, input: Tensor, offset: Tensor, mask: Tensor | None) -> Reading:
    """Where the layer reads."""
    grid = (layer.stride, layer.padding, layer.dilation)
    window = check_window(input, layer.weight, None, *grid, groups_of(input, layer.weight))
    field = Field(offset.unflatten(1, (-1, window.cells, 2)), None, "offset")
    resting = grid_offsets(window.kernel_size, window.dilation).repeat(field.values.shape[1], 1)
    return Reading(field, window, (input.shape[-2], input.shape[-1]), len(input), resting)


def offset_and_mask_given(
    layer: Any, input: Tensor, offset: Tensor, mask: Tensor | None = None, *, then: Then = convolved
) -> Any:
    """torchvision's ``DeformConv2d``: ``input (B, C, H, W)``, ``offset (B, 2*G*K, Ho, Wo)``, (dy, dx) per cell, and
    ``mask (B, G*K, Ho, Wo)``, which is taken as it is."""
    return then(layer, input, offset, mask)


def offset_given(layer: Any, x: Tensor, offset: Tensor, *, then: Then = convolved) -> Any:
    """mmcv's ``DeformConv2d``."""
    return then(layer, x, offset, None)


def modulation_given(layer: Any, x: Tensor, offset: Tensor, mask: Tensor, *, then: Then = convolved) -> Any:
    """mmcv's ``ModulatedDeformConv2d``."""
    return then(layer, x, offset, mask)


def offset_pack(layer: Any, x: Tensor, *, then: Then = convolved) -> Any:
    """mmcv's ``DeformConv2dPack``: ``conv_offset`` predicts the offsets."""
    return then(layer, x, layer.conv_offset(x), None)


def modulated_pack(layer: Any, x: Tensor, *, then: Then = convolved) -> Any:
    """mmcv's ``ModulatedDeformConv2dPack``: the first two thirds of ``conv_offset``'s channels are the offsets, in the
    order of the operator, and the last are logits, whose sigmoid is the mask; at 0 it halves every response."""
    predicted = layer.conv_offset(x)
    fields = predicted.shape[1] // 3
    offset, logits = predicted.split((2 * fields, fields), dim=1)
    return then(layer, x, offset, torch.sigmoid(logits))


_GIVEN = (offset_and_mask_given, offset_given, modulation_given)
_PACKS = (offset_pack, modulated_pack)


def rule_of(layer: Any, compute: Callable[..., Any], name: str) -> SamplingRule | None:
    """Of a layer that computes so: what its pack has learned, or nothing of its own, where offsets are given to it.
    None for what is no function of these."""
    if compute not in (*_GIVEN, *_PACKS):
        return None
    parameters = list(layer.conv_offset.parameters()) if compute in _PACKS else []

    def read(*args: Any, **kwargs: Any) -> Reading:
        return compute(layer, *args, then=reading, **kwargs)

    return SamplingRule(name, parameters, lambda: is_zero(parameters), read)
