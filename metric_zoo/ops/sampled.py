"""Sampled convolution: the one operator behind every kind. Where to sample is its argument."""

from __future__ import annotations

import torch
from torch import Tensor

from metric_zoo.errors import MetricZooError
from metric_zoo.ops.dispatch import sampled
from metric_zoo.ops.padding import Padding
from metric_zoo.ops.window import Window, check_fields, check_mask, check_real_field, window_for


def sampled_conv2d(
    input: Tensor,
    weight: Tensor,
    positions: Tensor,
    bias: Tensor | None = None,
    stride: int | tuple[int, int] = 1,
    padding: Padding = 0,
    dilation: int | tuple[int, int] = 1,
    groups: int = 1,
    mask: Tensor | None = None,
) -> Tensor:
    r"""Convolution whose samples lie at given positions around each window's centre.

    .. math:: out[b,o,p] = bias[o] + \sum_{c,i} weight[o,c,i]\, m_i(p)\, x[b,c](c(p) + y_i(p))

    with the window's centre :math:`c(p) = p \cdot stride - padding + dilation (k-1)/2` and bilinear reads that are
    zero outside the image (Metric Convolutions, ICCV 2025, https://arxiv.org/abs/2406.05400, section 2).

    Args:
        input: ``(B, C, H, W)``.
        weight: ``(O, C/groups, kh, kw)``; K = kh*kw samples in the kernel's row-major order.
        positions: ``(B or 1, G*K, 2, Ho, Wo)``, (x, y) in pixels relative to the window's centre; G divides C, and
            the channels of each of the G contiguous parts share their positions. The last two sizes may be 1, where
            all windows sample alike.
        bias: ``(O,)``.
        stride, dilation: one or two whole numbers, (height, width).
        padding: any form of `resolve_padding`.
        groups: as in `torch.nn.Conv2d`.
        mask: ``(B, G*K, Ho, Wo)``, a factor on every sample.

    Returns:
        ``(B, O, Ho, Wo)``; NaN at the pixels whose positions are NaN.

    Raises:
        MetricZooError: when shapes, dtypes or devices do not fit together.
    """
    window = window_for(input, weight, bias, stride, padding, dilation, groups)
    sample_groups = _check_positions(input, positions, window)
    check_mask(mask, input, sample_groups * window.cells, window)
    field = positions.unflatten(1, (sample_groups, window.cells)).flip(3)
    mask = None if mask is None else mask.unflatten(1, (sample_groups, window.cells))
    return sampled(input, weight, bias, field, mask, "position", window)


def _check_positions(input: Tensor, positions: Tensor, window: Window) -> int:
    if torch.compiler.is_compiling():
        check_real_field("positions", positions, input)
        return positions.shape[1] // window.cells
    if positions.dim() != 5 or positions.shape[2] != 2 or positions.shape[0] not in (1, input.shape[0]):
        raise MetricZooError(f"positions has shape {tuple(positions.shape)}, expected (B, G*K, 2, Ho, Wo)")
    x = positions[:, :, 0]
    size = window.size if tuple(x.shape[2:]) == (1, 1) else x.shape[2:]
    return check_fields("positions (x part)", x.expand(input.shape[0], -1, *size), input, window.cells, window)
