"""Blended sampling by the compiled library."""

from __future__ import annotations

import torch
from torch import Tensor

from metric_zoo.ops.backends.native.operators import Call, as_input, check
from metric_zoo.ops.layout import dense, memory_format
from metric_zoo.ops.window import Window

_FEW = 8
"""Channels: fewer are read faster as images of one."""


def forward(
    input: Tensor, weight: Tensor, field: Tensor, tables: Tensor, grid: tuple[int, int], window: Window
) -> Tensor:
    """`Backend.forward_blended` on CPU, in float32 or float64.

    Raises:
        MetricZooError: as `metric_zoo.ops.backends.native.operators.forward`.
    """
    check(input)
    if _is_split(input):
        planes = forward(*_planes(input, weight, field), tables, grid, window._replace(groups=1))
        return planes.view(input.shape).contiguous(memory_format=memory_format(input))
    output = torch.empty_like(input, memory_format=memory_format(input))
    if output.numel():
        call = Call(input, weight, None, field, None, "blend", window, output, tables.contiguous(), grid)
        call.run("forward", output=output)
    return output


def backward(
    grad: Tensor,
    input: Tensor,
    weight: Tensor,
    field: Tensor,
    tables: Tensor,
    grid: tuple[int, int],
    window: Window,
    needs: tuple[bool, bool, bool],
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """`Backend.backward_blended` on CPU.

    Raises:
        MetricZooError: as `forward`.
    """
    check(input)
    if _is_split(input):
        return _backward_of_planes(grad, input, weight, field, tables, grid, window, needs)
    grad = dense(grad)
    need_input, need_field, need_tables = needs
    pixels = torch.zeros_like(input, memory_format=torch.channels_last) if need_input else None
    grad_field = torch.zeros_like(field, memory_format=torch.contiguous_format) if need_field else None
    grad_tables = torch.zeros_like(tables, memory_format=torch.contiguous_format) if need_tables else None
    if grad.numel() == 0:
        return pixels, grad_field, grad_tables
    call = Call(input, weight, None, field, None, "blend", window, grad, tables.contiguous(), grid)
    call.run("backward", grad=grad, grad_input=pixels, grad_field=grad_field, grad_table=grad_tables)
    return as_input(pixels, input), grad_field, grad_tables


def _is_split(input: Tensor) -> bool:
    return 1 < input.shape[1] < _FEW


def _planes(input: Tensor, weight: Tensor, field: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Channels as images of one, which share their places."""
    each = input.shape[1] if field.shape[0] > 1 else 1
    return input.flatten(0, 1)[:, None], weight[:1], field.repeat_interleave(each, 0)


def _backward_of_planes(grad, input, weight, field, tables, grid, window, needs):
    planes, places, grad_tables = backward(
        grad.reshape(-1, 1, *grad.shape[2:]),
        *_planes(input, weight, field),
        tables,
        grid,
        window._replace(groups=1),
        needs,
    )
    if planes is not None:
        planes = planes.view(input.shape).contiguous(memory_format=memory_format(input))
    if places is not None and places.shape != field.shape:
        places = places.unflatten(0, (field.shape[0], -1)).sum(1)
    return planes, places, grad_tables
