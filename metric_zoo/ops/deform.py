"""Deformable convolution (Deformable ConvNets, ICCV 2017, https://arxiv.org/abs/1703.06211; v2, CVPR 2019,
https://arxiv.org/abs/1811.11168)."""

from __future__ import annotations

from torch import Tensor

from metric_zoo.ops.dispatch import sampled
from metric_zoo.ops.padding import Padding
from metric_zoo.ops.window import check_fields, check_mask, window_for


def deform_conv2d(
    input: Tensor,
    offset: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | tuple[int, int] = 1,
    padding: Padding = 0,
    dilation: int | tuple[int, int] = 1,
    mask: Tensor | None = None,
) -> Tensor:
    """Convolution whose every sample is moved by its own offset; the signature of `torchvision.ops.deform_conv2d`.

    Args:
        input: ``(B, C, H, W)``.
        offset: ``(B, 2*G*K, Ho, Wo)``, (dy, dx) per kernel cell, in pixels; G offset groups divide C.
        weight: ``(O, C/groups, kh, kw)``; the number of groups follows from C.
        bias: ``(O,)``.
        stride, padding, dilation: as in `sampled_conv2d`.
        mask: ``(B, G*K, Ho, Wo)``, a factor on every sample (v2).

    Returns:
        ``(B, O, Ho, Wo)``.

    Raises:
        MetricZooError: when shapes, dtypes or devices do not fit together.
    """
    window = window_for(input, weight, bias, stride, padding, dilation, groups_of(input, weight))
    offset_groups = check_fields("offset", offset, input, 2 * window.cells, window)
    check_mask(mask, input, offset_groups * window.cells, window)
    field = offset.unflatten(1, (offset_groups, window.cells, 2))
    mask = None if mask is None else mask.unflatten(1, (offset_groups, window.cells))
    return sampled(input, weight, bias, field, mask, "offset", window)


def groups_of(input: Tensor, weight: Tensor) -> int:
    """The number of convolution groups, as torchvision infers it from the channels."""
    if input.dim() != 4 or weight.dim() != 4:
        return 1  # check_window says what is wrong
    return max(input.shape[1] // max(weight.shape[1], 1), 1)
