"""Shifted convolution: one learned shift for the whole kernel ("entire deformable" in the metric-convolution paper)."""

from __future__ import annotations

from torch import Tensor

from metric_zoo.errors import MetricZooError
from metric_zoo.ops.deform import deform_conv2d
from metric_zoo.ops.padding import Padding


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
    if shift.dim() != 4 or shift.shape[1] == 0 or shift.shape[1] % 2:
        raise MetricZooError(f"shift has shape {tuple(shift.shape)}, expected (B, 2*G, Ho, Wo)")
    return deform_conv2d(input, shift_to_offset(shift, weight.shape[-2:]), weight, bias, stride, padding, dilation)


def shift_to_offset(shift: Tensor, kernel_size: tuple[int, int]) -> Tensor:
    """Repeat one (dy, dx) for every kernel cell: ``(B, 2*G, Ho, Wo) -> (B, 2*G*K, Ho, Wo)``."""
    cells = kernel_size[0] * kernel_size[1]
    return shift.unflatten(1, (-1, 1, 2)).expand(-1, -1, cells, -1, -1, -1).flatten(1, 3)
