"""Sampled convolution by the compiled library. Nothing but checked memory passes here."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from metric_zoo.errors import MetricZooError
from metric_zoo.ops.backends.base import Gradients
from metric_zoo.ops.backends.native import library
from metric_zoo.ops.backends.native.shifts import Shifts, shifts_of
from metric_zoo.ops.backends.native.structs import Problem, Stencil, Tensors
from metric_zoo.ops.layout import dense, is_channels_last, memory_format, shared_strides
from metric_zoo.ops.rules import Form, rule_of
from metric_zoo.ops.window import Window


def forward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    field: Tensor,
    mask: Tensor | None,
    sampling: str,
    window: Window,
) -> Tensor:
    """`Backend.forward` on CPU, in float32 or float64.

    Raises:
        MetricZooError: for another dtype or device, or an image of 2^31 pixels or more.
    """
    check(input)
    shape = (input.shape[0], weight.shape[0], *window.size)
    output = torch.empty(shape, dtype=input.dtype, memory_format=memory_format(input))
    if output.numel() == 0:
        return output
    shifts = shifts_of(input, weight, field, mask, sampling, window)
    if shifts is not None:
        return _stencil(input, bias, shifts, output)
    call = Call(input, weight, bias, field, mask, sampling, window, output)
    call.run("forward", output=output)
    return output


def _stencil(input: Tensor, bias: Tensor | None, shifts: Shifts, output: Tensor) -> Tensor:
    input, bias = input.contiguous(), None if bias is None else bias.contiguous()
    pointers = (t.data_ptr() for t in (shifts.first, shifts.rows, shifts.columns))
    stencil = Stencil(*input.shape, *output.shape[2:], *pointers, torch.get_num_threads())
    arguments = (input.data_ptr(), shifts.weights.data_ptr(), _pointer(bias), output.data_ptr())
    library.call("stencil", input.dtype, stencil, *arguments)
    return output


def backward(
    grad: Tensor,
    input: Tensor,
    weight: Tensor,
    field: Tensor,
    mask: Tensor | None,
    sampling: str,
    window: Window,
    needs: tuple[bool, bool, bool, bool],
) -> Gradients:
    """`Backend.backward` on CPU.

    Raises:
        MetricZooError: as `forward`.
    """
    check(input)
    grad = dense(grad)
    need_input, need_weight, need_field, need_mask = needs
    pixels = torch.zeros_like(input, memory_format=torch.channels_last) if need_input else None
    grad_weight = torch.empty_like(dense(weight)) if need_weight else None
    grad_field = torch.zeros_like(field, memory_format=torch.contiguous_format) if need_field else None
    grad_mask = None
    if need_mask and mask is not None:
        grad_mask = torch.empty_like(mask, memory_format=torch.contiguous_format)
    gradients = (pixels, grad_weight, grad_field, grad_mask)
    if grad.numel() == 0 or weight.numel() == 0:
        return tuple(None if g is None else g.zero_() for g in gradients)
    call = Call(input, weight, None, field, mask, sampling, window, grad)
    call.run(
        "backward", grad=grad, grad_input=pixels, grad_weight=grad_weight, grad_field=grad_field, grad_mask=grad_mask
    )
    return as_input(pixels, input), *gradients[1:]


class Call:
    """Memory in the layouts that the kernels read, kept alive while they run."""

    def __init__(
        self, input, weight, bias, field, mask, sampling, window, like_output, tables=None, grid=(0, 0)
    ) -> None:
        self._input = _by_pixel(input)
        self._weight = dense(weight)
        self._others = [None if t is None else t.contiguous() for t in (bias, field, mask)]
        if tables is None:
            form = rule_of(sampling).form
            tables, eps = _table(sampling, window.kernel_size, window.dilation, field.shape[3], input.dtype)
        else:
            form, eps = Form.BLEND, 0.0
        self._table = table = tables
        self.problem = _problem(self._input, self._weight, field, form, window, is_channels_last(like_output), grid)
        bias, field, mask = self._others
        self.tensors = Tensors(
            self._input.data_ptr(),
            self._weight.data_ptr(),
            _pointer(bias),
            _pointer(field),
            _pointer(mask),
            _pointer(table),
            eps,
        )

    def run(self, direction: str, **written: Tensor | None) -> None:
        """Fill what is written, besides the output's gradient, which is read."""
        for name, tensor in written.items():
            setattr(self.tensors, name, _pointer(tensor))
        library.call(direction, self._input.dtype, self.problem, self.tensors)


def check(input: Tensor) -> None:
    """What concerns this backend alone; shapes, and that all tensors are alike, are the operator's to check.

    Raises:
        MetricZooError: as `forward`.
    """
    if input.dtype not in library.TYPES or input.device.type != "cpu":
        raise MetricZooError(
            f"input has dtype {input.dtype}, on {input.device}: the native backend computes in {tuple(library.TYPES)} "
            "on CPU"
        )
    if (input.shape[2] + 2) * (input.shape[3] + 2) >= 2**31:
        raise MetricZooError(
            f"input has {input.shape[2]}x{input.shape[3]} pixels, the native backend counts to 2^31: cut the image "
            "or call use_backend('torch')"
        )


def as_input(pixels: Tensor | None, input: Tensor) -> Tensor | None:
    """A gradient that is channels last, in the input's order."""
    return pixels if pixels is None or is_channels_last(input) else _by_channel(pixels)


def _by_pixel(tensor: Tensor) -> Tensor:
    """The same values, channels last."""
    if tensor.is_contiguous(memory_format=torch.channels_last):
        return tensor
    batch, channels, height, width = tensor.shape
    result = torch.empty_like(tensor, memory_format=torch.channels_last)
    _transpose(tensor.contiguous(), result, batch, channels, height * width)
    return result


def _by_channel(tensor: Tensor) -> Tensor:
    """The same values of a tensor that is channels last, contiguous."""
    if tensor.is_contiguous():  # in both formats, of which the strides shall be this one's
        return tensor.flatten().view(tensor.shape)
    batch, channels, height, width = tensor.shape
    result = torch.empty_like(tensor, memory_format=torch.contiguous_format)
    _transpose(tensor, result, batch, height * width, channels)
    return result


def _transpose(source: Tensor, result: Tensor, *sizes: int) -> None:
    threads = torch.get_num_threads()
    library.call("transpose", source.dtype, source.data_ptr(), result.data_ptr(), *sizes, threads)


def _pointer(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def _problem(
    input: Tensor,
    weight: Tensor,
    field: Tensor,
    form: Form,
    window: Window,
    channels_last: bool,
    grid: tuple[int, int],
) -> Problem:
    batch, channels, height, width = input.shape
    outputs, per_group, *kernel = weight.shape
    pixels, cells = window.size[0] * window.size[1], window.cells
    (top, _), (left, _) = window.pads
    return Problem(
        *(batch, height, width, channels, outputs, *window.size, *kernel, *window.stride, top, left, *window.dilation),
        *(window.groups, field.shape[1], form, field.shape[3]),
        *shared_strides(field),
        *((1, outputs) if channels_last else (pixels, 1)),
        *((cells * per_group, 1, per_group) if is_channels_last(weight) else (cells * per_group, cells, 1)),
        *grid,
        torch.get_num_threads(),
    )


@lru_cache(maxsize=256)
def _table(
    sampling: str, kernel_size: tuple[int, int], dilation: tuple[int, int], numbers: int, dtype: torch.dtype
) -> tuple[Tensor | None, float]:
    rule = rule_of(sampling)
    table = rule.table(kernel_size, dilation, numbers)
    return None if table is None else table.to(dtype).contiguous(), rule.eps(kernel_size)
