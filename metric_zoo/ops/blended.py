"""A depthwise sampled convolution whose samples are blended, at every pixel, from tables."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.flop_counter import flop_registry, register_flop_formula

from metric_zoo.errors import MetricZooError
from metric_zoo.geometry.precision import at_least_float32
from metric_zoo.ops.backend import backend_for, kernels_for
from metric_zoo.ops.backends.native import library
from metric_zoo.ops.choice import Block, chosen
from metric_zoo.ops.derivatives import leaves_of, second_derivatives
from metric_zoo.ops.dispatch import refuse_forward_mode
from metric_zoo.ops.inductor import keep_whole
from metric_zoo.ops.layout import memory_format
from metric_zoo.ops.sampled import sampled_conv2d
from metric_zoo.ops.window import Window, check_window

_FEW = 8
"""Channels."""


def blended_conv2d(input: Tensor, coordinates: Tensor, offsets: Tensor, weights: Tensor) -> Tensor:
    r"""Every pixel reads at offsets, and with weights, interpolated between those of a grid of tables.

    .. math:: out(p) = \sum_i \Big(\sum_k \alpha_k(p) w_{k,i}\Big)\; x\Big(p + \sum_k \alpha_k(p)\, o_{k,i}\Big)

    with the (multi)linear weights :math:`\alpha_k(p)` of the pixel's coordinates on the grid, and bilinear reads that
    are zero outside the image (DISK, ICLR 2026, spatially varying filtering). All channels are filtered alike.

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
    _check(input, coordinates, offsets, weights)
    if any(isinstance(size, int) and size == 0 for size in input.shape):
        return input + 0 * (coordinates.sum() + offsets.sum() + weights.sum())  # with gradients of zero
    if backend_for(input) == "torch":
        return composed(input, coordinates, offsets, weights).to(input.dtype)
    refuse_forward_mode(input, coordinates, offsets, weights)
    compute = at_least_float32(input).dtype
    return _fused(*(tensor.to(compute) for tensor in (input, coordinates, offsets, weights))).to(input.dtype)


def multilinear(coordinates: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The weights of interpolation on a grid, ``(B, D, H, W) -> (B, points, H, W)``, in row-major order."""
    alpha = coordinates.new_ones(1, 1, 1, 1)
    for axis, size in enumerate(shape):
        place = within(coordinates[:, axis : axis + 1], 0, size - 1)
        steps = torch.arange(size, dtype=place.dtype, device=place.device).view(1, -1, 1, 1)
        # By cells, not by distance: at a table itself the slope is that of the cell behind it, not zero.
        cell = place.detach().floor().clamp_max(size - 2)
        part = place - cell
        along = (steps == cell) * (1 - part) + (steps == cell + 1) * part
        alpha = (alpha[:, :, None] * along[:, None]).flatten(1, 2)
    return alpha


def within(values: Tensor, low: float, high: float) -> Tensor:
    """The nearest from ``low`` to ``high``. At either end the slope is 1, beyond 0; that of `torch.clamp` is 0 at the
    ends, too, from where a parameter would never move. NaN stays."""
    return torch.where((values >= low) & (values <= high), values, values.detach().clamp(low, high))


def row_window(samples: int) -> tuple[tuple[tuple[int, int], tuple[int, int]], float]:
    """A window of one row that is as wide as there are samples and leaves an image its size: the padding, and how far
    its middle lies to the right of its pixel, in pixels."""
    samples = int(samples)  # under a tracer, too: the window is part of the program
    before = (samples - 1) // 2
    return ((0, 0), (before, samples - 1 - before)), (samples - 1) % 2 / 2


def composed(input: Tensor, coordinates: Tensor, offsets: Tensor, weights: Tensor) -> Tensor:
    """`blended_conv2d` by the framework's operations and one `sampled_conv2d`."""
    with torch.autocast(input.device.type, enabled=False):
        return _composed_as_given(input, coordinates, offsets, weights)


def _composed_as_given(input: Tensor, coordinates: Tensor, offsets: Tensor, weights: Tensor) -> Tensor:
    samples, batch = weights.shape[-1], input.shape[0]
    alpha = multilinear(at_least_float32(coordinates), tuple(weights.shape[:-1]))
    positions, mask = _blend(alpha, offsets), _blend(alpha, weights[..., None])
    padding, shift = row_window(samples)
    x, y = positions.unbind(2)
    positions = torch.stack((x - shift, y), dim=2)
    ones = input.new_ones(input.shape[1], 1, 1, samples)
    mask = mask.squeeze(2).expand(batch, -1, -1, -1)
    return sampled_conv2d(input, ones, positions, padding=padding, groups=input.shape[1], mask=mask)


def _blend(alpha: Tensor, table: Tensor) -> Tensor:
    """``(B, points, H, W)`` and ``(*grid, N, n)`` -> ``(B, N, n, H, W)``."""
    return torch.einsum("bphw,pnc->bnchw", alpha, table.flatten(0, -3).to(alpha))


@torch.library.custom_op(
    "metric_zoo::blended_conv2d",
    mutates_args=(),
    device_types=("cpu", "cuda"),
    tags=(torch.Tag.needs_exact_strides,),  # as of sampled_conv2d
)
def _fused(input: Tensor, coordinates: Tensor, offsets: Tensor, weights: Tensor) -> Tensor:
    _check_fused(input, coordinates, offsets, weights)
    kernels = kernels_for(input)
    call = _Call.of(input, coordinates, offsets, weights, kernels is library)
    output = kernels.forward_blended(*call)
    few = call.input.shape != input.shape
    return output.view(input.shape).contiguous(memory_format=memory_format(input)) if few else output


@torch.library.custom_op("metric_zoo::blended_conv2d_backward", mutates_args=(), device_types="cpu")
def _fused_backward(
    grad: Tensor, input: Tensor, coordinates: Tensor, offsets: Tensor, weights: Tensor, needs: Sequence[bool]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Of the native backend."""
    _check_fused(input, coordinates, offsets, weights)
    if grad.shape != input.shape or grad.dtype != input.dtype:
        raise MetricZooError(f"grad has shape {tuple(grad.shape)} and dtype {grad.dtype}: not those of the output")
    found = _native_gradients(grad, (input, coordinates, offsets, weights), needs)
    return tuple(input.new_empty(0) if g is None else g for g in found)


class _Call(NamedTuple):
    """What the kernels take: a depthwise convolution of ones, places on the grid, and tables ``(points, N, 3)``."""

    input: Tensor
    weight: Tensor
    field: Tensor
    tables: Tensor
    grid: tuple[int, int]
    window: Window

    @classmethod
    def of(cls, input: Tensor, coordinates: Tensor, offsets: Tensor, weights: Tensor, native: bool) -> _Call:
        samples, grid = weights.shape[-1], tuple(weights.shape[:-1])
        padding, shift = row_window(samples)
        # A few channels are as well images of one, which the native kernel reads faster.
        few = native and input.shape[1] < _FEW
        each = input.shape[1] if few and coordinates.shape[0] > 1 else 1
        planes = input.flatten(0, 1)[:, None] if few else input
        ones = input.new_ones(planes.shape[1], 1, 1, samples)
        window = check_window(planes, ones, None, 1, padding, 1, planes.shape[1])
        x, y = offsets.flatten(0, -3).unbind(-1)
        tables = torch.stack((y, x - shift, weights.flatten(0, -2)), dim=-1)
        field = coordinates.repeat_interleave(each, 0)[:, None, None]
        return cls(planes, ones, field, tables, grid if len(grid) == 2 else (1, *grid), window)


def _native_gradients(
    grad: Tensor, saved: Sequence[Tensor], needs: Sequence[bool]
) -> tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None]:
    input, coordinates, offsets, weights = saved
    call = _Call.of(*saved, native=True)
    need_input, need_places, *need_tables = needs
    planes, places, tables = library.backward_blended(
        grad.reshape(call.input.shape), *call, (need_input, need_places, any(need_tables))
    )
    if planes is not None:
        planes = planes.view(input.shape).contiguous(memory_format=memory_format(input))
    if places is not None:
        places = places[:, 0, 0]
        if places.shape != coordinates.shape:  # channels that were taken for images share their places
            places = places.unflatten(0, (coordinates.shape[0], input.shape[1])).sum(1)
    moved = counted = None
    if tables is not None:
        y, x, counted = tables.unbind(-1)
        moved, counted = torch.stack((x, y), dim=-1).view(offsets.shape), counted.contiguous().view(weights.shape)
    return planes, places, moved if need_tables[0] else None, counted if need_tables[1] else None


@_fused.register_fake
def _(input, coordinates, offsets, weights):
    keep_whole("metric_zoo::blended_conv2d")
    _check_fused(input, coordinates, offsets, weights)
    return torch.empty_like(input, memory_format=memory_format(input))


@_fused_backward.register_fake
def _(grad, input, coordinates, offsets, weights, needs):
    formats = (memory_format(input), *3 * [torch.contiguous_format])
    return tuple(
        torch.empty_like(tensor, memory_format=format) if need else input.new_empty(0)
        for tensor, format, need in zip((input, coordinates, offsets, weights), formats, needs, strict=True)
    )


def _keep(ctx, inputs, output) -> None:
    ctx.chosen = chosen()
    ctx.save_for_backward(*inputs)


def _backward(ctx, grad: Tensor):
    with Block(ctx.chosen):
        return _gradients(ctx, grad)


def _gradients(ctx, grad: Tensor):
    needs = list(ctx.needs_input_grad)
    if kernels_for(grad) is library:
        gradients = _fused_backward(grad, *ctx.saved_tensors, needs)
        return tuple(g if need else None for g, need in zip(gradients, needs, strict=True))
    return _composed_gradients(grad, ctx.saved_tensors, needs)


def _composed_gradients(grad: Tensor, saved: Sequence[Tensor], needs: Sequence[bool]) -> tuple[Tensor | None, ...]:
    create_graph = torch.is_grad_enabled()
    wanted = [i for i, need in enumerate(needs) if need]
    with torch.enable_grad():
        leaves = leaves_of(saved)
        found = torch.autograd.grad(composed(*leaves), [leaves[i] for i in wanted], grad, create_graph=create_graph)
    gradients = dict(zip(wanted, found, strict=True))
    return tuple(gradients.get(i) for i in range(len(saved)))


_fused.register_autograd(_backward, setup_context=_keep)


def _keep_backward(ctx, inputs, output) -> None:
    *saved, ctx.needs = inputs
    ctx.save_for_backward(*saved)


def _double_backward(ctx, *upstream: Tensor | None):
    arrived = [u if need else None for u, need in zip(upstream, ctx.needs, strict=True)]
    return *second_derivatives(composed, ctx.saved_tensors, arrived, ctx.needs_input_grad[:5]), None


_fused_backward.register_autograd(_double_backward, setup_context=_keep_backward)


def _flops(input, coordinates, offsets, weights, *, out_shape=None, **_) -> int:
    """Of the sum over samples, as a depthwise convolution counts; reads and blending are not counted."""
    return 2 * math.prod(input) * weights[-1]


def _flops_backward(grad, input, coordinates, offsets, weights, needs, *, out_shape=None, **_) -> int:
    """Of the samples' gradients."""
    return any(needs) * _flops(input, coordinates, offsets, weights)


for _packet, _formula in (
    (torch.ops.metric_zoo.blended_conv2d, _flops),
    (torch.ops.metric_zoo.blended_conv2d_backward, _flops_backward),
):
    if _packet not in flop_registry:  # a module that is reloaded registers once
        register_flop_formula(_packet)(_formula)


def _check_fused(input: Tensor, coordinates: Tensor, offsets: Tensor, weights: Tensor) -> None:
    """Whoever finds the operator in an exported graph may call it with anything: no kernel starts on less."""
    _check(input, coordinates, offsets, weights)
    for name, tensor in (("coordinates", coordinates), ("offsets", offsets), ("weights", weights)):
        if tensor.dtype != input.dtype:
            raise MetricZooError(f"{name} has dtype {tensor.dtype}, input {input.dtype}: cast one of them")


def _check(input: Tensor, coordinates: Tensor, offsets: Tensor, weights: Tensor) -> None:
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
