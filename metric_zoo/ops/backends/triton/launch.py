"""Calls of the kernels. Nothing but checked memory passes here."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import torch
import triton
from torch import Tensor

from metric_zoo.errors import MetricZooError
from metric_zoo.ops.backends.base import Gradients
from metric_zoo.ops.backends.triton import DTYPES, INTERPRETED, configs
from metric_zoo.ops.backends.triton import backward as backward_kernels
from metric_zoo.ops.backends.triton import forward as forward_kernels
from metric_zoo.ops.backends.triton.taps import Problem, Samples
from metric_zoo.ops.layout import dense, is_channels_last, memory_format, shared_strides
from metric_zoo.ops.rules import Form, rule_of
from metric_zoo.ops.window import Window

_MAX_INDEX = 2**31
_KEYS = ("tuning", "RULE", "NUMBERS", "SHARED", "PRECISION")
"""Arguments that the best blocks depend on, beside the dtypes."""
# Partial sums of the weight's gradient take at most so many numbers, or 1 per weight.
_MAX_PARTIAL = 1 << 24


def forward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    field: Tensor,
    mask: Tensor | None,
    sampling: str,
    window: Window,
    tables: Tensor | None = None,
    grid: tuple[int, int] = (0, 0),
) -> Tensor:
    """`Backend.forward` in float32, bfloat16 or float16; field and mask in float32.

    ``tables`` and ``grid`` are those of `forward_blended`, where ``sampling`` is ``"blend"``.

    Raises:
        MetricZooError: for another dtype, or an image or output of 2^31 numbers or more.
    """
    shape = (input.shape[0], weight.shape[0], *window.size)
    output = torch.empty(shape, dtype=input.dtype, device=input.device, memory_format=memory_format(input))
    if output.numel() == 0 or weight.numel() == 0:
        return output.zero_() if bias is None else output.copy_(bias[:, None, None])
    call = _Call(input, weight, field, mask, sampling, window, output, tables, grid)
    name = "forward_depthwise" if call.depthwise else "forward_dense"
    call.run(
        getattr(forward_kernels, name),
        name,
        lambda blocks: call.blocks_of_pixels(blocks) * call.blocks_of_outputs(blocks),
        input=call.input,
        weight=call.weight,
        bias=None if bias is None else bias.contiguous(),
        output=output,
    )
    return output


def forward_blended(
    input: Tensor, weight: Tensor, field: Tensor, tables: Tensor, grid: tuple[int, int], window: Window
) -> Tensor:
    """`Backend.forward_blended`, in float32 but for the input and the weight.

    Raises:
        MetricZooError: as `forward`.
    """
    return forward(input, weight, None, field, None, "blend", window, tables.contiguous(), grid)


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
    """`Backend.backward`.

    Under `torch.use_deterministic_algorithms` every one is repeatable bit by bit; else the input's is summed in no
    fixed order.

    Raises:
        MetricZooError: as `forward`.
    """
    if grad.numel() == 0 or weight.numel() == 0:
        tensors = (input, weight, field, mask)
        return tuple(
            torch.zeros_like(t) if need and t is not None else None for t, need in zip(tensors, needs, strict=True)
        )
    grad = dense(grad)
    call = _Call(input, weight, field, mask, sampling, window, grad)
    need_input, need_weight, need_field, need_mask = needs
    owned = need_input and torch.are_deterministic_algorithms_enabled()
    grad_input, grad_field, grad_mask = call.backward_samples(grad, (need_input and not owned, need_field, need_mask))
    if owned:
        grad_input = call.backward_input_owned(grad)
    grad_weight = call.backward_weight(grad) if need_weight else None
    return grad_input, grad_weight, grad_field, grad_mask


class _Call:
    """Memory in the layouts that the kernels read."""

    def __init__(self, input, weight, field, mask, sampling, window, like_output, tables=None, grid=(0, 0)) -> None:
        _check(input, weight, field, like_output)
        self._like_input, self._like_weight, self._like_field = input, weight, field
        self.input = input.contiguous(memory_format=torch.channels_last)
        self.weight = weight.contiguous(memory_format=torch.channels_last)
        self.depthwise = weight.shape[1] == 1
        self.problem = _problem(input, weight, field, window, is_channels_last(like_output), grid)
        self._pixels = like_output[:, 0].numel()
        if tables is None:
            form, numbers = rule_of(sampling).form, field.shape[3]
            tables, eps = _table(sampling, window.kernel_size, window.dilation, numbers, input.device)
        else:
            form, eps = Form.BLEND, 0.0
        mask = None if mask is None else mask.contiguous()
        self.samples = Samples(field.contiguous(), mask, tables, eps)
        cudnn: Any = torch.backends.cudnn  # when it is imported, an object takes this module's place
        allows_tf32 = cudnn.conv.fp32_precision == "tf32"
        precision = "tf32" if allows_tf32 and input.dtype == torch.float32 else "ieee"
        self._options = {
            "RULE": form.value,
            "NUMBERS": triton.next_power_of_2(field.shape[3]) if form in (Form.LINEAR, Form.RADIAL) else 0,
            "PRECISION": precision,
        }

    def run(self, kernel, name: str, programs, tune: bool = True, **arguments) -> None:
        """Launch on ``programs(blocks)`` programs, with the blocks that are fastest on this GPU."""
        arguments = {**self._options, **arguments}
        tuning = self.tuning(arguments.get("into", ()))
        with torch.cuda.device_of(self.input):
            if not tune:
                kernel[lambda blocks: (programs(blocks),)](self.problem, s=self.samples, **arguments)
            elif _measures():
                tuned = _tuned(kernel, name, self.input.device.index)
                tuned[lambda blocks: (programs(blocks),)](self.problem, tuning, s=self.samples, **arguments)
            else:
                blocks = (_chooser or configs.fixed)(name)
                kernel[(programs(blocks),)](self.problem, tuning, s=self.samples, **arguments, **blocks)

    def tuning(self, into: Sequence[Tensor | None]) -> tuple[int, ...]:
        """What decides on the best blocks: all but the exact number of pixels; and which gradients are wanted."""
        p = self.problem
        given = (self.samples.mask is not None, *(gradient is not None for gradient in into))
        return (self._pixels.bit_length(), p.channels, p.per_group, p.run, p.outputs, p.cells, *map(int, given))

    def blocks_of_pixels(self, blocks: configs.Blocks) -> int:
        """With COLUMNS, rectangles that lie in one image each."""
        p, columns = self.problem, blocks.get("COLUMNS", 0)
        if columns:
            rows = blocks["BLOCK_M"] // columns
            return p.batch * triton.cdiv(p.out_width, columns) * triton.cdiv(p.out_height, rows)
        return triton.cdiv(self._pixels, blocks["BLOCK_M"])

    def blocks_of_outputs(self, blocks: configs.Blocks) -> int:
        p = self.problem
        if self.depthwise:
            return p.channels // p.per_field * triton.cdiv(p.per_field * p.outputs, blocks["BLOCK_N"])
        return p.channels // p.per_group * triton.cdiv(p.outputs, blocks["BLOCK_N"])

    def backward_samples(self, grad: Tensor, needs: tuple[bool, bool, bool]) -> tuple[Tensor | None, ...]:
        if not any(needs):
            return None, None, None
        need_input, need_field, need_mask = needs
        p, field = self.problem, self._like_field
        fields = p.channels // p.per_field
        # Few pixels give few programs: then several share the channels of a block, each with sums of its own.
        steps = p.per_field // p.run * triton.cdiv(p.run, 64)
        parts = max(1, min(steps, _programs(self.input) // (fields * triton.cdiv(self._pixels, 64))))
        zeros = {"dtype": torch.float32, "device": self.input.device}
        size = (p.out_height, p.out_width)
        grad_input = torch.zeros_like(self.input, dtype=torch.float32) if need_input else None
        grad_field = torch.zeros(parts, p.batch, *field.shape[1:4], *size, **zeros) if need_field else None
        grad_mask = torch.zeros(parts, p.batch, fields, p.cells, *size, **zeros) if need_mask else None
        self.run(
            backward_kernels.backward_samples,
            "backward_samples_depthwise" if self.depthwise else "backward_samples",
            lambda blocks: self.blocks_of_pixels(blocks) * fields * parts,
            parts=parts,
            grad=grad,
            input=self.input,
            weight=self.weight,
            into=backward_kernels.SampleGradients(grad_input, grad_field, grad_mask),
            DEPTHWISE=self.depthwise,
            SHARED=p.field_cell == 0,
        )
        return (
            None if grad_input is None else self._as_input(grad_input),
            None if grad_field is None else grad_field.sum(0).sum_to_size(field.shape),
            None if grad_mask is None else grad_mask.sum(0),
        )

    def backward_input_owned(self, grad: Tensor) -> Tensor:
        p, blocks = self.problem, configs.OWNED
        grad_input = torch.empty_like(self.input)
        tiles = p.batch * triton.cdiv(p.height, blocks["TILE"]) * triton.cdiv(p.width, blocks["TILE"])
        self.run(
            backward_kernels.backward_input_owned,
            "backward_input_owned",
            lambda blocks: tiles * (p.channels // p.run) * triton.cdiv(p.run, blocks["BLOCK_K"]),
            tune=False,
            grad=grad,
            weight=self.weight,
            grad_input=grad_input,
            DEPTHWISE=self.depthwise,
            **blocks,
        )
        return self._as_input(grad_input)

    def backward_weight(self, grad: Tensor) -> Tensor:
        p, weight = self.problem, self.weight
        if self.depthwise:
            blocks_of_weights = p.cells * triton.cdiv(p.channels * p.outputs, 32)
        else:
            blocks_of_weights = p.cells * triton.cdiv(p.channels, 64) * triton.cdiv(p.outputs, 128)
        wanted = max(1, 2 * _programs(self.input) // blocks_of_weights)
        splits = min(wanted, triton.cdiv(self._pixels, 64), max(1, _MAX_PARTIAL // weight.numel()))
        outputs, per_group, *kernel = weight.shape
        partial = torch.empty(splits, outputs, *kernel, per_group, dtype=torch.float32, device=weight.device)

        def programs(blocks: configs.Blocks) -> int:
            if self.depthwise:
                return splits * p.cells * self.blocks_of_outputs(blocks)
            steps = p.channels // p.run * triton.cdiv(p.run, blocks["BLOCK_K"])
            return splits * p.cells * steps * triton.cdiv(p.outputs, blocks["BLOCK_N"])

        name = "backward_weight_depthwise" if self.depthwise else "backward_weight_dense"
        self.run(
            getattr(backward_kernels, name),
            name,
            programs,
            splits=splits,
            grad=grad,
            input=self.input,
            grad_weight=partial,
        )
        result = partial.sum(0).permute(0, 3, 1, 2).to(weight.dtype)
        return result.contiguous(memory_format=memory_format(self._like_weight))

    def _as_input(self, gradient: Tensor) -> Tensor:
        return gradient.to(self.input.dtype, memory_format=memory_format(self._like_input))


def _check(input: Tensor, weight: Tensor, field: Tensor, output: Tensor) -> None:
    """What concerns this backend alone; shapes, and that all tensors are alike, are the operator's to check."""
    if input.dtype not in DTYPES:
        raise MetricZooError(f"input has dtype {input.dtype}: the triton backend computes in {DTYPES}")
    if input.dtype == torch.bfloat16 and INTERPRETED:
        raise MetricZooError("triton's interpreter cannot multiply matrices of bfloat16: use float32 or float16")
    indices = {
        "weight": weight.numel(),
        "one image of the input": input[:1].numel(),
        "one image's field, were it different everywhere": math.prod(field.shape[1:4]) * output[0, 0].numel(),
        "one image's mask": field.shape[1] * math.prod(weight.shape[2:]) * output[0, 0].numel(),
        "one image of the output": output[:1].numel(),
        "the batch's output pixels": output[:, :1].numel(),
    }
    for name, count in indices.items():
        if count >= _MAX_INDEX:
            raise MetricZooError(
                f"{name}: {count} numbers, and the triton backend counts to 2^31: cut the image or the batch, "
                "or call use_backend('torch')"
            )


def _problem(
    input: Tensor, weight: Tensor, field: Tensor, window: Window, channels_last: bool, grid: tuple[int, int]
) -> Problem:
    batch, channels, height, width = input.shape
    out_channels, per_group, *kernel = weight.shape
    per_field = channels // field.shape[1]
    (top, _), (left, _) = window.pads
    area = window.size[0] * window.size[1]
    field_batch, field_group, field_cell, field_component, field_row, field_column = shared_strides(field)
    return Problem(
        batch=batch,
        height=height,
        width=width,
        channels=channels,
        per_group=per_group,
        per_field=per_field,
        run=per_field if per_group == 1 else math.gcd(per_group, per_field),
        outputs=out_channels // window.groups,
        out_height=window.size[0],
        out_width=window.size[1],
        cells=window.cells,
        kernel_width=kernel[1],
        stride_height=window.stride[0],
        stride_width=window.stride[1],
        dilation_height=window.dilation[0],
        dilation_width=window.dilation[1],
        middle_height=window.dilation[0] * (kernel[0] - 1) / 2 - top,
        middle_width=window.dilation[1] * (kernel[1] - 1) / 2 - left,
        field_batch=field_batch,
        field_group=field_group,
        field_cell=field_cell,
        field_component=field_component,
        field_row=field_row,
        field_column=field_column,
        numbers=field.shape[3],
        tables_down=grid[0],
        tables_across=grid[1],
        out_batch=out_channels * area,
        out_channel=1 if channels_last else area,
        out_pixel=out_channels if channels_last else 1,
    )


@lru_cache(maxsize=256)
def _table(
    sampling: str, kernel_size: tuple[int, int], dilation: tuple[int, int], numbers: int, device: torch.device
) -> tuple[Tensor | None, float]:
    rule = rule_of(sampling)
    table = rule.table(kernel_size, dilation, numbers)
    return None if table is None else table.float().contiguous().to(device), rule.eps(kernel_size)


# Of the process, not of a context: backward passes on a GPU run in threads of the framework's.
_chooser: Callable[[str], configs.Blocks] | None = None


@contextmanager
def blocks_from(chooser: Callable[[str], configs.Blocks]) -> Iterator[None]:
    """Run kernels with the blocks that ``chooser`` gives for a kernel's name, without measuring."""
    global _chooser
    before, _chooser = _chooser, chooser
    try:
        yield
    finally:
        _chooser = before


def _measures() -> bool:
    """Not where nothing may run twice: while a CUDA graph is recorded, or in deterministic mode."""
    if INTERPRETED or torch.are_deterministic_algorithms_enabled() or _chooser is not None:
        return False
    return not torch.cuda.is_current_stream_capturing()


@lru_cache(maxsize=256)
def _tuned(kernel: Any, name: str, device: int | None) -> Any:
    """One of its own for every device: they may differ, and their backward passes run in threads of their own.

    Measuring runs a kernel several times: what it adds to must be zero before each.
    """

    def clear(arguments: dict[str, Any], reset_only: bool = False) -> None:
        for gradient in arguments.get("into", ()):
            if gradient is not None:
                gradient.zero_()

    tune = triton.autotune(
        configs.candidates(name),
        key=[key for key in _KEYS if key in kernel.arg_names],
        pre_hook=clear,
        do_bench=_quick_bench,
        prune_configs_by={"early_config_prune": configs.prune},
    )
    return tune(kernel)


def _quick_bench(run: Any, quantiles: Any) -> Any:
    return triton.testing.do_bench(run, warmup=5, rep=20, quantiles=quantiles)  # milliseconds


def _programs(tensor: Tensor) -> int:
    """How many programs fill the device."""
    if tensor.device.type != "cuda":
        return 8
    return 4 * torch.cuda.get_device_properties(tensor.device).multi_processor_count
