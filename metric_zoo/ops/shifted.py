"""Shifted convolution: one learned shift for the whole kernel ("entire deformable" in the metric-convolution paper)."""

from __future__ import annotations

from torch import Tensor

from metric_zoo.ops.deform import groups_of
from metric_zoo.ops.dispatch import sampled
from metric_zoo.ops.padding import Padding
from metric_zoo.ops.window import check_fields, window_for


def shifted_conv2d(
    input: Tensor,
    shift: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | tuple[int, int] = 1,
    padding: Padding = 0,
    dilation: int | tuple[int, int] = 1,
) -> Tensor:
    """Convolution whose whole window is moved by one shift per output pixel.

    Args:
        input: ``(B, C, H, W)``.
        shift: ``(B, 2*G, Ho, Wo)``, (dy, dx) in pixels; G shift groups divide C.
        weight: ``(O, C/groups, kh, kw)``; the number of groups follows from C.
        bias: ``(O,)``.
        stride, padding, dilation: as in `sampled_conv2d`.

    Returns:
        ``(B, O, Ho, Wo)``.

    Raises:
        MetricZooError: when shapes, dtypes or devices do not fit together.
    """
    window = window_for(input, weight, bias, stride, padding, dilation, groups_of(input, weight))
    shift_groups = check_fields("shift", shift, input, 2, window)
    return sampled(input, weight, bias, shift.unflatten(1, (shift_groups, 1, 2)), None, "offset", window)
