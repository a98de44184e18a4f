"""Deformable convolution (Deformable ConvNets, ICCV 2017; v2, CVPR 2019)."""

from __future__ import annotations

from torch import Tensor

from metric_zoo.geometry.precision import at_least_float32
from metric_zoo.geometry.sampling import grid_offsets
from metric_zoo.ops.padding import Padding, output_size, pair, resolve_padding
from metric_zoo.ops.sampled import check_fields, check_kernel, sampled_conv2d


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
    stride, dilation = pair(stride, "stride", 1), pair(dilation, "dilation", 1)
    groups = max(input.shape[1] // max(weight.shape[1], 1), 1)
    kernel_size = check_kernel(input, weight, bias, groups)
    pads = resolve_padding(padding, tuple(input.shape[-2:]), kernel_size, stride, dilation)
    size = output_size(tuple(input.shape[-2:]), kernel_size, stride, pads, dilation)
    check_fields("offset", offset, input, 2 * kernel_size[0] * kernel_size[1], size)
    positions = deformed_grid(offset, kernel_size, dilation)
    return sampled_conv2d(input, weight, positions, bias, stride, pads, dilation, groups, mask)


def deformed_grid(offset: Tensor, kernel_size: tuple[int, int], dilation: tuple[int, int]) -> Tensor:
    """The kernel's grid moved by ``offset``: (dy, dx) ``(B, 2*G*K, Ho, Wo)`` -> (x, y) ``(B, G*K, 2, Ho, Wo)``."""
    moved = at_least_float32(offset).unflatten(1, (-1, kernel_size[0] * kernel_size[1], 2)).flip(3)
    return (moved + grid_offsets(kernel_size, dilation).to(moved)[..., None, None]).flatten(1, 2)
