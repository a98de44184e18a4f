"""The compiled library, and calls into it. Nothing but checked memory passes here."""

from __future__ import annotations

import ctypes
import os
from ctypes import POINTER, Structure, c_double, c_int, c_int64, c_void_p
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from metric_zoo.errors import MetricZooError
from metric_zoo.geometry.sampling import ball_samples
from metric_zoo.ops.backends.native.shifts import Shifts, shifts_of
from metric_zoo.ops.layout import dense, is_channels_last, memory_format, shared_strides
from metric_zoo.ops.window import Window

ISAS = ("baseline", "avx2", "avx512")
_NAME = "libmetric_zoo"
_INTERFACE = 3
_OVERRIDE = "METRIC_ZOO_LIBRARY"
_RULES = {"offset": 0, "position": 1, "blend": 3}
_BALL = 2
_TYPES = {torch.float32: "float32", torch.float64: "float64"}
_OUT_OF_MEMORY = 1


class _Problem(Structure):
    """``Problem`` of csrc/problem.h."""

    _fields_ = [
        (name, c_int64)
        for name in (
            *("batch", "height", "width", "channels", "out_channels", "out_height", "out_width"),
            *("kernel_height", "kernel_width", "stride_height", "stride_width", "top", "left"),
            *("dilation_height", "dilation_width", "groups", "fields", "rule"),
            *("field_batch", "field_group", "field_cell", "field_component", "field_row", "field_column"),
            *("out_channel", "out_pixel", "weight_out", "weight_channel", "weight_cell"),
            *("tables_down", "tables_across", "threads"),
        )
    ]


class _Tensors(Structure):
    """``Tensors`` of csrc/problem.h."""

    _fields_ = [
        *((name, c_void_p) for name in ("input", "weight", "bias", "field", "mask", "table")),
        ("table_eps", c_double),
        *(
            (name, c_void_p)
            for name in ("output", "grad", "grad_input", "grad_weight", "grad_field", "grad_mask", "grad_table")
        ),
    ]


class _Stencil(Structure):
    """``Stencil`` of csrc/problem.h."""

    _fields_ = [
        *((name, c_int64) for name in ("batch", "channels", "height", "width", "out_height", "out_width")),
        *((name, c_void_p) for name in ("first", "rows", "columns")),
        ("threads", c_int64),
    ]


def _find() -> Path | None:
    if _OVERRIDE in os.environ:  # another build of it, as `make sanitize` makes
        return Path(os.environ[_OVERRIDE]).resolve()
    return next(iter(sorted(Path(__file__).parent.glob(f"{_NAME}.*"))), None)


def _load() -> tuple[ctypes.CDLL | None, str]:
    """The library, or why there is none.

    Raises:
        MetricZooError: if a library that was asked for does not load.
    """
    path = _find()
    if path is None:
        return None, "it was not compiled when metric-zoo was installed (a C++17 compiler is needed)"
    library, why = _open(path)
    if library is None and _OVERRIDE in os.environ:
        raise MetricZooError(f"{_OVERRIDE}: {why}")
    return library, why


def _open(path: Path) -> tuple[ctypes.CDLL | None, str]:
    try:
        library = ctypes.CDLL(str(path))
        interface = library.metric_zoo_interface()
    except (OSError, AttributeError) as error:
        return None, f"{path.name} does not load: {error}"
    if interface != _INTERFACE:
        return None, f"{path.name} is from another version of metric-zoo: install it again"
    for name in _TYPES.values():
        for direction in ("forward", "backward"):
            function = getattr(library, f"metric_zoo_{direction}_{name}")
            function.argtypes, function.restype = (POINTER(_Problem), POINTER(_Tensors)), c_int
        function = getattr(library, f"metric_zoo_stencil_{name}")
        function.argtypes, function.restype = (POINTER(_Stencil), *4 * [c_void_p]), c_int
        function = getattr(library, f"metric_zoo_transpose_{name}")
        function.argtypes, function.restype = (c_void_p, c_void_p, c_int64, c_int64, c_int64, c_int), None
    return library, ""


# torch is imported above: the library then shares its pool of threads.
_LIBRARY, _WHY = _load()
_AVAILABLE = _LIBRARY is not None


def is_available() -> bool:
    """Whether the library was compiled and loads."""
    return _AVAILABLE


def why_unavailable() -> str:
    """What is the matter; empty where nothing is."""
    return _WHY


def limit_isa(name: str | None = None) -> str:
    """Use at most this instruction set; None leaves the limit.

    Returns:
        The one in use: the processor's best within the limit.

    Raises:
        MetricZooError: for an unknown name.
    """
    if name is not None and name not in ISAS:
        raise MetricZooError(f"unknown instruction set {name!r}; known: {ISAS}")
    return ISAS[_LIBRARY.metric_zoo_limit_isa(-1 if name is None else ISAS.index(name))]


if _AVAILABLE and "METRIC_ZOO_ISA" in os.environ:
    limit_isa(os.environ["METRIC_ZOO_ISA"])


def forward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    field: Tensor,
    mask: Tensor | None,
    sampling: str,
    window: Window,
) -> Tensor:
    """The operator of `metric_zoo.ops.dispatch.sampled` on CPU, in float32 or float64.

    Raises:
        MetricZooError: for another dtype or device, or an image of 2^31 pixels or more.
    """
    _check(input)
    shape = (input.shape[0], weight.shape[0], *window.size)
    output = torch.empty(shape, dtype=input.dtype, memory_format=memory_format(input))
    if output.numel() == 0:
        return output
    shifts = shifts_of(input, weight, field, mask, sampling, window)
    if shifts is not None:
        return _stencil(input, bias, shifts, output)
    call = _Call(input, weight, bias, field, mask, sampling, window, output)
    call.tensors.output = output.data_ptr()
    call.run("forward")
    return output


def _stencil(input: Tensor, bias: Tensor | None, shifts: Shifts, output: Tensor) -> Tensor:
    input, bias = input.contiguous(), None if bias is None else bias.contiguous()
    pointers = (t.data_ptr() for t in (shifts.first, shifts.rows, shifts.columns))
    stencil = _Stencil(*input.shape, *output.shape[2:], *pointers, torch.get_num_threads())
    function = getattr(_LIBRARY, f"metric_zoo_stencil_{_TYPES[input.dtype]}")
    arguments = (input.data_ptr(), shifts.weights.data_ptr(), _pointer(bias), output.data_ptr())
    if function(stencil, *arguments) == _OUT_OF_MEMORY:
        raise MemoryError("sampled convolution, forward: out of memory")
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
) -> tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None]:
    """Gradients of input, weight, field and mask; None where ``needs`` says so.

    Raises:
        MetricZooError: as `forward`.
    """
    _check(input)
    grad = dense(grad)
    need_input, need_weight, need_field, need_mask = needs
    pixels = torch.zeros_like(input, memory_format=torch.channels_last) if need_input else None
    grad_weight = torch.empty_like(dense(weight)) if need_weight else None
    grad_field = torch.zeros_like(field, memory_format=torch.contiguous_format) if need_field else None
    grad_mask = torch.empty_like(mask, memory_format=torch.contiguous_format) if need_mask else None
    gradients = (pixels, grad_weight, grad_field, grad_mask)
    if grad.numel() == 0 or weight.numel() == 0:
        return tuple(None if g is None else g.zero_() for g in gradients)
    call = _Call(input, weight, None, field, mask, sampling, window, grad)
    call.tensors.grad = grad.data_ptr()
    for name, gradient in zip(("grad_input", "grad_weight", "grad_field", "grad_mask"), gradients, strict=True):
        setattr(call.tensors, name, _pointer(gradient))
    call.run("backward")
    if pixels is not None and not is_channels_last(input):
        pixels = _by_channel(pixels)
    return pixels, *gradients[1:]


def forward_blended(
    input: Tensor, weight: Tensor, field: Tensor, tables: Tensor, grid: tuple[int, int], window: Window
) -> Tensor:
    """The operator of `metric_zoo.ops.blended`, on CPU, in float32 or float64.

    Args:
        input: ``(B, C, H, W)``.
        weight: ``(C, 1, kh, kw)``.
        field: ``(B or 1, 1, 1, 1 or 2, H, W)``, places on the grid.
        tables: ``(down * across, K, 3)``: (y, x) from the window's centre and a factor, of every sample.
        grid: tables down and across; one down for a grid of one axis.

    Raises:
        MetricZooError: as `forward`.
    """
    _check(input)
    output = torch.empty_like(input, memory_format=memory_format(input))
    if output.numel() == 0:
        return output
    call = _Call(input, weight, None, field, None, "blend", window, output, tables.contiguous(), grid)
    call.tensors.output = output.data_ptr()
    call.run("forward")
    return output


def backward_blended(
    grad: Tensor,
    input: Tensor,
    weight: Tensor,
    field: Tensor,
    tables: Tensor,
    grid: tuple[int, int],
    window: Window,
    needs: tuple[bool, bool, bool],
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Gradients of input, field and tables; None where ``needs`` says so.

    Args:
        grad: of the output.
        input, weight, field, tables, grid, window: as `forward_blended`.

    Raises:
        MetricZooError: as `forward`.
    """
    _check(input)
    grad = dense(grad)
    need_input, need_field, need_tables = needs
    pixels = torch.zeros_like(input, memory_format=torch.channels_last) if need_input else None
    grad_field = torch.zeros_like(field, memory_format=torch.contiguous_format) if need_field else None
    grad_tables = torch.zeros_like(tables, memory_format=torch.contiguous_format) if need_tables else None
    if grad.numel() == 0:
        return pixels, grad_field, grad_tables
    call = _Call(input, weight, None, field, None, "blend", window, grad, tables.contiguous(), grid)
    call.tensors.grad = grad.data_ptr()
    for name, gradient in (("grad_input", pixels), ("grad_field", grad_field), ("grad_table", grad_tables)):
        setattr(call.tensors, name, _pointer(gradient))
    call.run("backward")
    return pixels if pixels is None or is_channels_last(input) else _by_channel(pixels), grad_field, grad_tables


class _Call:
    """Memory in the layouts that the kernels read, kept alive while they run."""

    def __init__(
        self, input, weight, bias, field, mask, sampling, window, like_output, tables=None, grid=(0, 0)
    ) -> None:
        self._input = _by_pixel(input)
        self._weight = dense(weight)
        self._others = [None if t is None else t.contiguous() for t in (bias, field, mask)]
        self._type = _TYPES[input.dtype]
        table, eps = _table(sampling, window.kernel_size, window.dilation, input.dtype)
        table = table if tables is None else tables
        self._table = table
        self.problem = _problem(self._input, self._weight, field, sampling, window, is_channels_last(like_output), grid)
        bias, field, mask = self._others
        self.tensors = _Tensors(
            self._input.data_ptr(),
            self._weight.data_ptr(),
            _pointer(bias),
            field.data_ptr(),
            _pointer(mask),
            _pointer(table),
            eps,
        )

    def run(self, direction: str) -> None:
        function = getattr(_LIBRARY, f"metric_zoo_{direction}_{self._type}")
        if function(self.problem, self.tensors) == _OUT_OF_MEMORY:
            raise MemoryError(f"sampled convolution, {direction}: out of memory")


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
    function = getattr(_LIBRARY, f"metric_zoo_transpose_{_TYPES[source.dtype]}")
    function(source.data_ptr(), result.data_ptr(), *sizes, torch.get_num_threads())


def _pointer(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def _check(input: Tensor) -> None:
    """What concerns this backend alone; shapes, and that all tensors are alike, are the operator's to check."""
    if input.dtype not in _TYPES or input.device.type != "cpu":
        raise MetricZooError(
            f"input has dtype {input.dtype}, on {input.device}: the native backend computes in {tuple(_TYPES)} on CPU"
        )
    if (input.shape[2] + 2) * (input.shape[3] + 2) >= 2**31:
        raise MetricZooError(
            f"input has {input.shape[2]}x{input.shape[3]} pixels, the native backend counts to 2^31: cut the image "
            "or call use_backend('torch')"
        )


def _problem(
    input: Tensor,
    weight: Tensor,
    field: Tensor,
    sampling: str,
    window: Window,
    channels_last: bool,
    grid: tuple[int, int],
) -> _Problem:
    batch, channels, height, width = input.shape
    outputs, per_group, *kernel = weight.shape
    pixels, cells = window.size[0] * window.size[1], window.cells
    (top, _), (left, _) = window.pads
    return _Problem(
        *(batch, height, width, channels, outputs, *window.size, *kernel, *window.stride, top, left, *window.dilation),
        *(window.groups, field.shape[1], _RULES.get(sampling, _BALL)),
        *shared_strides(field),
        *((1, outputs) if channels_last else (pixels, 1)),
        *((cells * per_group, 1, per_group) if is_channels_last(weight) else (cells * per_group, cells, 1)),
        *grid,
        torch.get_num_threads(),
    )


@lru_cache(maxsize=256)
def _table(
    sampling: str, kernel_size: tuple[int, int], dilation: tuple[int, int], dtype: torch.dtype
) -> tuple[Tensor | None, float]:
    if sampling in _RULES:
        return None, 0.0
    samples = ball_samples(sampling, kernel_size, dilation)
    return torch.cat((samples.displacement, samples.direction), dim=1).to(dtype).contiguous(), samples.eps
