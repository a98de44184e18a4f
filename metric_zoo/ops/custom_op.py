"""The operator as the framework sees it: one custom operator, its derivatives, and its shapes without data.

The backends fill its results with numbers; everything here they share.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import flop_registry, register_flop_formula

from metric_zoo.errors import MetricZooError
from metric_zoo.ops.backend import backend_of_operator
from metric_zoo.ops.backends import torch as composed
from metric_zoo.ops.derivatives import second_derivatives
from metric_zoo.ops.inductor import keep_whole
from metric_zoo.ops.layout import memory_format
from metric_zoo.ops.settled import Settled, run, settled
from metric_zoo.ops.window import Window, check_sample_field, check_window


@torch.library.custom_op(
    "metric_zoo::sampled_conv2d",
    mutates_args=(),
    device_types=("cpu", "cuda"),
    # The default of an operator that inductor takes of itself; those on its list have none.
    tags=(torch.Tag.needs_exact_strides,),
)
def sampled_conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    field: Tensor,
    mask: Tensor | None,
    sampling: str,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> Tensor:
    options = (sampling, stride, padding, dilation, groups)
    backend, window = settled(input, weight, bias, field, mask, *options) or Settled(backend_of_operator(input))
    window = window or _window(input, weight, bias, *options[1:])
    _check_sampled(input, weight, bias, field, mask, sampling, window)
    return backend.forward(input, weight, bias, field, mask, sampling, window)


@torch.library.custom_op("metric_zoo::sampled_conv2d_backward", mutates_args=(), device_types=("cpu", "cuda"))
def sampled_conv2d_backward(
    grad: Tensor,
    input: Tensor,
    weight: Tensor,
    field: Tensor,
    mask: Tensor | None,
    sampling: str,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    needs: Sequence[bool],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    here = settled(grad, input, weight, field, mask, sampling, stride, padding, dilation, groups, needs)
    backend, _ = here or Settled(backend_of_operator(input))
    # Between the passes hooks may have changed what was saved.
    window = _checked(input, weight, None, field, mask, sampling, stride, padding, dilation, groups)
    if grad.shape != (input.shape[0], weight.shape[0], *window.size) or grad.dtype != input.dtype:
        raise MetricZooError(f"grad has shape {tuple(grad.shape)} and dtype {grad.dtype}: not those of the output")
    if not backend.differentiates(sampling):  # which it leaves to the framework; here the device's does
        backend = backend_of_operator(input, lambda other: other.differentiates(sampling))
    need_input, need_weight, need_field, need_mask = needs
    wanted = (need_input, need_weight, need_field, need_mask and mask is not None)
    gradients = backend.backward(grad, input, weight, field, mask, sampling, window, wanted)
    pixels, kernel, moved, masked = (input.new_empty(0) if g is None else g for g in gradients)
    return pixels, kernel, moved, masked


@sampled_conv2d.register_fake
def _(input, weight, bias, field, mask, sampling, stride, padding, dilation, groups):
    keep_whole("metric_zoo::sampled_conv2d")
    window = _checked(input, weight, bias, field, mask, sampling, stride, padding, dilation, groups)
    shape = (input.shape[0], weight.shape[0], *window.size)
    return input.new_empty(shape).contiguous(memory_format=memory_format(input))


@sampled_conv2d_backward.register_fake
def _(grad, input, weight, field, mask, sampling, stride, padding, dilation, groups, needs):
    formats = (memory_format(input), memory_format(weight), *2 * [torch.contiguous_format])
    return tuple(
        torch.empty_like(tensor, memory_format=format) if need and tensor is not None else input.new_empty(0)
        for tensor, format, need in zip((input, weight, field, mask), formats, needs, strict=True)
    )


def _checked(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    field: Tensor,
    mask: Tensor | None,
    sampling: str,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> Window:
    window = _window(input, weight, bias, stride, padding, dilation, groups)
    _check_sampled(input, weight, bias, field, mask, sampling, window)
    return window


def _window(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> Window:
    """Whoever finds the operator in an exported graph may call it with anything: no kernel starts on less."""
    if not len(stride) == len(dilation) == 2 or len(padding) != 4:
        raise MetricZooError(f"stride={stride}, padding={padding}, dilation={dilation}: expected 2, 4 and 2 numbers")
    pads = ((padding[0], padding[1]), (padding[2], padding[3]))
    return check_window(input, weight, bias, (stride[0], stride[1]), pads, (dilation[0], dilation[1]), groups)


def _check_sampled(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    field: Tensor,
    mask: Tensor | None,
    sampling: str,
    window: Window,
) -> None:
    check_sample_field(field, mask, sampling, input, window)
    precise = torch.promote_types(input.dtype, torch.float32)
    # Autocast does not reach in here: of the weight and the bias, too, the numbers are read as they lie.
    for name, tensor, dtype in (
        ("weight", weight, input.dtype),
        ("bias", bias, input.dtype),
        ("field", field, precise),
        ("mask", mask, precise),
    ):
        if tensor is not None and tensor.dtype != dtype:
            raise MetricZooError(f"{name} has dtype {tensor.dtype}, expected {dtype} for an input in {input.dtype}")


def _keep(ctx, inputs, output) -> None:
    input, weight, _, field, mask, *ctx.options = inputs
    ctx.backend, _ = settled(*inputs) or Settled(backend_of_operator(input))
    ctx.save_for_backward(input, weight, field, mask)


def _backward(ctx, grad: Tensor):
    input, weight, field, mask = ctx.saved_tensors
    need_input, need_weight, need_bias, need_field, need_mask, *_ = ctx.needs_input_grad
    needs = [need_input, need_weight, need_field, need_mask and mask is not None]
    arguments = (grad, input, weight, field, mask, *ctx.options, needs)
    gradients = run(torch.ops.metric_zoo.sampled_conv2d_backward.default, arguments, ctx.backend)
    grad_input, grad_weight, grad_field, grad_mask = (
        g if need else None for g, need in zip(gradients, needs, strict=True)
    )
    grad_bias = grad.sum((0, 2, 3)) if need_bias else None
    return grad_input, grad_weight, grad_bias, grad_field, grad_mask, *[None] * len(ctx.options)


sampled_conv2d.register_autograd(_backward, setup_context=_keep)


def _keep_backward(ctx, inputs, output) -> None:
    grad, input, weight, field, mask, *ctx.options, ctx.needs = inputs
    ctx.save_for_backward(grad, input, weight, field, mask)


def _double_backward(ctx, *upstream: Tensor | None):
    """The derivative of the gradients, through the torch backend."""

    def forward(input: Tensor, weight: Tensor, field: Tensor, mask: Tensor | None) -> Tensor:
        window = _checked(input, weight, None, field, mask, *ctx.options)
        with torch.autocast(input.device.type, enabled=False):
            return composed.sampled_conv2d(input, weight, None, field, mask, ctx.options[0], window)

    arrived = [u if need else None for u, need in zip(upstream, ctx.needs, strict=True)]
    second = second_derivatives(forward, ctx.saved_tensors, arrived, ctx.needs_input_grad[: len(ctx.saved_tensors)])
    return *second, *[None] * (len(ctx.options) + 1)


sampled_conv2d_backward.register_autograd(_double_backward, setup_context=_keep_backward)


def _flops(input, weight, bias, field, mask, *options, out_shape: Any = None, **_) -> int:
    """Of the product, as a dense convolution counts: two operations for each multiply-add; reads are not counted."""
    outputs, per_group, height, width = weight
    return 2 * input[0] * outputs * per_group * height * width * out_shape[2] * out_shape[3]


def _flops_backward(grad, input, weight, field, mask, *options, out_shape=None, **_) -> int:
    """One product for every gradient that needs one: of the samples (input, field or mask) and of the weight."""
    need_input, need_weight, need_field, need_mask = options[-1]
    products = int(need_input or need_field or need_mask) + int(need_weight)
    return products * _flops(input, weight, None, field, mask, out_shape=grad)


_FORMULAS: dict[Any, Callable[..., int]] = {
    torch.ops.metric_zoo.sampled_conv2d: _flops,
    torch.ops.metric_zoo.sampled_conv2d_backward: _flops_backward,
}
for _packet, _formula in _FORMULAS.items():
    if _packet not in flop_registry:  # a module that is reloaded registers once
        register_flop_formula(_packet)(_formula)
