"""The operator behind `metric_zoo.ops.blended_conv2d`, and its derivatives."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.flop_counter import flop_registry, register_flop_formula

from metric_zoo.errors import MetricZooError
from metric_zoo.ops.backend import backend_of_operator
from metric_zoo.ops.backends import Backend
from metric_zoo.ops.blended import check_blend, composed
from metric_zoo.ops.blending import row_window
from metric_zoo.ops.choice import Block
from metric_zoo.ops.derivatives import leaves_of, second_derivatives
from metric_zoo.ops.inductor import keep_whole
from metric_zoo.ops.layout import memory_format
from metric_zoo.ops.settled import Settled, run, settled
from metric_zoo.ops.window import Window, check_window


@torch.library.custom_op(
    "metric_zoo::blended_conv2d",
    mutates_args=(),
    device_types=("cpu", "cuda"),
    tags=(torch.Tag.needs_exact_strides,),  # as of sampled_conv2d
)
def _operator(input: Tensor, coordinates: Tensor, offsets: Tensor, weights: Tensor) -> Tensor:
    here = settled(input, coordinates, offsets, weights)
    _check_operands(input, coordinates, offsets, weights)
    backend, _ = here or Settled(backend_of_operator(input))
    return backend.forward_blended(*_Operands.of(input, coordinates, offsets, weights))


@torch.library.custom_op("metric_zoo::blended_conv2d_backward", mutates_args=(), device_types=("cpu", "cuda"))
def _backward_operator(
    grad: Tensor, input: Tensor, coordinates: Tensor, offsets: Tensor, weights: Tensor, needs: Sequence[bool]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    here = settled(grad, input, coordinates, offsets, weights, needs)
    _check_operands(input, coordinates, offsets, weights)  # between the passes hooks may have changed what was saved
    if grad.shape != input.shape or grad.dtype != input.dtype:
        raise MetricZooError(f"grad has shape {tuple(grad.shape)} and dtype {grad.dtype}: not those of the output")
    backend, _ = here or Settled(backend_of_operator(input, lambda backend: backend.differentiates_blended))
    found = _gradients(backend, grad, (input, coordinates, offsets, weights), needs)
    pixels, places, moved, counted = (input.new_empty(0) if g is None else g for g in found)
    return pixels, places, moved, counted


class _Operands(NamedTuple):
    """What the kernels take: a depthwise convolution of ones, places on the grid, and tables ``(points, N, 3)``."""

    input: Tensor
    weight: Tensor
    field: Tensor
    tables: Tensor
    grid: tuple[int, int]
    window: Window

    @classmethod
    def of(cls, input: Tensor, coordinates: Tensor, offsets: Tensor, weights: Tensor) -> _Operands:
        *down, across, samples = weights.shape
        padding, shift = row_window(samples)
        ones = input.new_ones(input.shape[1], 1, 1, samples)
        window = check_window(input, ones, None, 1, padding, 1, input.shape[1])
        x, y = offsets.flatten(0, -3).unbind(-1)
        tables = torch.stack((y, x - shift, weights.flatten(0, -2)), dim=-1)
        return cls(input, ones, coordinates[:, None, None], tables, (down[0] if down else 1, across), window)


def _gradients(
    backend: Backend, grad: Tensor, saved: Sequence[Tensor], needs: Sequence[bool]
) -> tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None]:
    _, _, offsets, weights = saved
    need_input, need_places, *need_tables = needs
    wanted = (need_input, need_places, any(need_tables))
    pixels, places, tables = backend.backward_blended(grad, *_Operands.of(*saved), wanted)
    moved = counted = None
    if tables is not None:
        y, x, counted = tables.unbind(-1)
        moved, counted = torch.stack((x, y), dim=-1).view(offsets.shape), counted.contiguous().view(weights.shape)
    places = None if places is None else places[:, 0, 0]
    return pixels, places, moved if need_tables[0] else None, counted if need_tables[1] else None


@_operator.register_fake
def _(input, coordinates, offsets, weights):
    keep_whole("metric_zoo::blended_conv2d")
    _check_operands(input, coordinates, offsets, weights)
    return torch.empty_like(input, memory_format=memory_format(input))


@_backward_operator.register_fake
def _(grad, input, coordinates, offsets, weights, needs):
    formats = (memory_format(input), *3 * [torch.contiguous_format])
    return tuple(
        torch.empty_like(tensor, memory_format=format) if need else input.new_empty(0)
        for tensor, format, need in zip((input, coordinates, offsets, weights), formats, needs, strict=True)
    )


def _keep(ctx, inputs, output) -> None:
    ctx.backend, _ = settled(*inputs) or Settled(backend_of_operator(inputs[0]))
    ctx.save_for_backward(*inputs)


def _backward(ctx, grad: Tensor):
    needs, backend = list(ctx.needs_input_grad), ctx.backend
    if not backend.differentiates_blended:
        with Block(backend.name):
            return _composed_gradients(grad, ctx.saved_tensors, needs)
    operator = torch.ops.metric_zoo.blended_conv2d_backward.default
    gradients = run(operator, (grad, *ctx.saved_tensors, needs), backend)
    return tuple(g if need else None for g, need in zip(gradients, needs, strict=True))


def _composed_gradients(grad: Tensor, saved: Sequence[Tensor], needs: Sequence[bool]) -> tuple[Tensor | None, ...]:
    create_graph = torch.is_grad_enabled()
    wanted = [i for i, need in enumerate(needs) if need]
    with torch.enable_grad():
        leaves = leaves_of(saved)
        found = torch.autograd.grad(composed(*leaves), [leaves[i] for i in wanted], grad, create_graph=create_graph)
    gradients = dict(zip(wanted, found, strict=True))
    return tuple(gradients.get(i) for i in range(len(saved)))


_operator.register_autograd(_backward, setup_context=_keep)


def _keep_backward(ctx, inputs, output) -> None:
    *saved, ctx.needs = inputs
    ctx.save_for_backward(*saved)


def _double_backward(ctx, *upstream: Tensor | None):
    arrived = [u if need else None for u, need in zip(upstream, ctx.needs, strict=True)]
    return *second_derivatives(composed, ctx.saved_tensors, arrived, ctx.needs_input_grad[:5]), None


_backward_operator.register_autograd(_double_backward, setup_context=_keep_backward)


def _flops(input, coordinates, offsets, weights, *, out_shape=None, **_) -> int:
    """Of the sum over samples, as a depthwise convolution counts; reads and blending are not counted."""
    return 2 * math.prod(input) * weights[-1]


def _flops_backward(grad, input, coordinates, offsets, weights, needs, *, out_shape=None, **_) -> int:
    """Of the samples' gradients."""
    return any(needs) * _flops(input, coordinates, offsets, weights)


_FORMULAS: dict[Any, Callable[..., int]] = {
    torch.ops.metric_zoo.blended_conv2d: _flops,
    torch.ops.metric_zoo.blended_conv2d_backward: _flops_backward,
}
for _packet, _formula in _FORMULAS.items():
    if _packet not in flop_registry:  # a module that is reloaded registers once
        register_flop_formula(_packet)(_formula)


def _check_operands(input: Tensor, coordinates: Tensor, offsets: Tensor, weights: Tensor) -> None:
    """Whoever finds the operator in an exported graph may call it with anything: no kernel starts on less."""
    check_blend(input, coordinates, offsets, weights)
    for name, tensor in (("coordinates", coordinates), ("offsets", offsets), ("weights", weights)):
        if tensor.dtype != input.dtype:
            raise MetricZooError(f"{name} has dtype {tensor.dtype}, input {input.dtype}: cast one of them")
