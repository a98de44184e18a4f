"""What the deformable layers of torchvision and mmcv compute, on this project's operator.

Deformable ConvNets (ICCV 2017, https://arxiv.org/abs/1703.06211) and v2 (CVPR 2019, https://arxiv.org/abs/1811.11168),
as published in `torchvision.ops.DeformConv2d` and in https://github.com/open-mmlab/mmcv (``mmcv/ops/deform_conv.py``,
``modulated_deform_conv.py``). Arguments have their names there: they may be passed by name. Each has the layer first.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from metric_zoo.ops.deform import deform_conv2d


def offset_and_mask_given(layer: Any, input: Tensor, offset: Tensor, mask: Tensor | None = None) -> Tensor:
    """torchvision's ``DeformConv2d``: ``input (B, C, H, W)``, ``offset (B, 2*G*K, Ho, Wo)``, (dy, dx) per cell, and
    ``mask (B, G*K, Ho, Wo)``, which is taken as it is."""
    return _convolved(layer, input, offset, mask)


def offset_given(layer: Any, x: Tensor, offset: Tensor) -> Tensor:
    """mmcv's ``DeformConv2d``."""
    return _convolved(layer, x, offset, None)


def modulation_given(layer: Any, x: Tensor, offset: Tensor, mask: Tensor) -> Tensor:
    """mmcv's ``ModulatedDeformConv2d``."""
    return _convolved(layer, x, offset, mask)


def offset_pack(layer: Any, x: Tensor) -> Tensor:
    """mmcv's ``DeformConv2dPack``: ``conv_offset`` predicts the offsets."""
    return _convolved(layer, x, layer.conv_offset(x), None)


def modulated_pack(layer: Any, x: Tensor) -> Tensor:
    """mmcv's ``ModulatedDeformConv2dPack``: the first two thirds of ``conv_offset``'s channels are the offsets, in the
    order of the operator, and the last are logits, whose sigmoid is the mask; at 0 it halves every response."""
    predicted = layer.conv_offset(x)
    fields = predicted.shape[1] // 3
    offset, logits = predicted.split((2 * fields, fields), dim=1)
    return _convolved(layer, x, offset, torch.sigmoid(logits))


def _convolved(layer: Any, input: Tensor, offset: Tensor, mask: Tensor | None) -> Tensor:
    bias = getattr(layer, "bias", None)  # mmcv's first version has none
    return deform_conv2d(input, offset, layer.weight, bias, layer.stride, layer.padding, layer.dilation, mask)
