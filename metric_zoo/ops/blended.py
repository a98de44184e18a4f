"""A depthwise sampled convolution whose samples are blended, at every pixel, from tables."""

from __future__ import annotations

import torch
from torch import Tensor

from metric_zoo.errors import MetricZooError
from metric_zoo.geometry.precision import at_least_float32
from metric_zoo.ops.backend import backend_for
from metric_zoo.ops.blending import blend, multilinear, row_window
from metric_zoo.ops.dispatch import refuse_forward_mode
from metric_zoo.ops.sampled import sampled_conv2d
from metric_zoo.ops.settled import run


def blended_conv2d(input: Tensor, coordinates: Tensor, offsets: Tensor, weights: Tensor) -> Tensor:
    r"""Every pixel reads at offsets, and with weights, interpolated between those of a grid of tables.

    .. math:: out(p) = \sum_i \Big(\sum_k \alpha_k(p) w_{k,i}\Big)\; x\Big(p + \sum_k \alpha_k(p)\, o_{k,i}\Big)

    with the (multi)linear weights :math:`\alpha_k(p)` of the pixel's coordinates on the grid, and bilinear reads that
    are zero outside the image (DISK, ICLR 2026, https://arxiv.org/abs/2512.04556, spatially varying filtering). All
    channels are filtered alike.

    The native and the triton backend blend while they sample, and store nothing per sample; so does the native backend
    for gradients. Those on triton, and the torch backend, go through `sampled_conv2d` with the blended positions as a
    tensor. Beside a pixel that is infinite, outputs may be NaN, and on the torch backend wherever a table holds NaN;
    autocast does not change the precision.

    Args:
        input: ``(B, C, H, W)``.
        coordinates: ``(B or 1, D, H, W)``, D 1 or 2, in steps of the grid: from 0 to its number of tables less one;
            beyond, the nearest.
        offsets: ``(*grid, N, 2)``, (x, y) in pixels; the grid has D axes of at least two tables.
        weights: ``(*grid, N)``.

    Returns:
        ``(B, C, H, W)`` in the input's dtype.

    Raises:
        MetricZooError: when shapes or devices do not fit together; on the triton backend for float64.
    """
    check_blend(input, coordinates, offsets, weights)
    if any(isinstance(size, int) and size == 0 for size in input.shape):
        return input + 0 * (coordinates.sum() + offsets.sum() + weights.sum())  # with gradients of zero
    backend = backend_for(input)
    if backend.is_composed:
        return composed(input, coordinates, offsets, weights).to(input.dtype)
    refuse_forward_mode(input, coordinates, offsets, weights)
    compute = at_least_float32(input).dtype
    tensors = tuple(tensor.to(compute) for tensor in (input, coordinates, offsets, weights))
    return run(torch.ops.metric_zoo.blended_conv2d.default, tensors, backend).to(input.dtype)


def composed(input: Tensor, coordinates: Tensor, offsets: Tensor, weights: Tensor) -> Tensor:
    """`blended_conv2d` by the framework's operations and one `sampled_conv2d`."""
    with torch.autocast(input.device.type, enabled=False):
        return _composed_as_given(input, coordinates, offsets, weights)


def _composed_as_given(input: Tensor, coordinates: Tensor, offsets: Tensor, weights: Tensor) -> Tensor:
    samples, batch = weights.shape[-1], input.shape[0]
    alpha = multilinear(at_least_float32(coordinates), tuple(weights.shape[:-1]))
    positions, mask = (blend(alpha, table.flatten(0, -3)) for table in (offsets, weights[..., None]))
    padding, shift = row_window(samples)
    x, y = positions.unbind(2)
    positions = torch.stack((x - shift, y), dim=2)
    ones = input.new_ones(input.shape[1], 1, 1, samples)
    mask = mask.squeeze(2).expand(batch, -1, -1, -1)
    return sampled_conv2d(input, ones, positions, padding=padding, groups=input.shape[1], mask=mask)


def check_blend(input: Tensor, coordinates: Tensor, offsets: Tensor, weights: Tensor) -> None:
    """Check the arguments of `blended_conv2d` against each other.

    Raises:
        MetricZooError: naming the tensor and the shape, dtype or device expected.
    """
    if input.dim() != 4 or not input.is_floating_point():
        raise MetricZooError(
            f"input has shape {tuple(input.shape)} and dtype {input.dtype}: expected (B, C, H, W), floating-point"
        )
    for name, tensor in (("coordinates", coordinates), ("offsets", offsets), ("weights", weights)):
        if tensor.device != input.device:
            raise MetricZooError(f"{name} is on {tensor.device}, input on {input.device}: move one of them")
        if not tensor.is_floating_point():
            raise MetricZooError(f"{name} has dtype {tensor.dtype}, expected a floating-point type")
    shape, grid = tuple(coordinates.shape), tuple(weights.shape[:-1])
    if coordinates.dim() != 4 or shape[0] not in (1, input.shape[0]) or shape[2:] != tuple(input.shape[2:]):
        raise MetricZooError(f"coordinates {shape} for an input {tuple(input.shape)}: expected (B or 1, D, H, W)")
    if (
        tuple(offsets.shape) != (*weights.shape, 2)
        or len(grid) != shape[1]
        or len(grid) not in (1, 2)
        or min(weights.shape) < 1
        or min(grid) < 2
    ):
        raise MetricZooError(
            f"offsets {tuple(offsets.shape)} and weights {tuple(weights.shape)} for {shape[1]} coordinates: expected "
            "(*grid, N, 2) and (*grid, N), a grid of one or two axes with two tables or more each"
        )
