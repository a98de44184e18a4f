"""The geometry of one call, and whether its tensors fit together."""

from __future__ import annotations

from typing import NamedTuple, cast

import torch
from torch import Tensor

from metric_zoo.errors import MetricZooError
from metric_zoo.ops.padding import Padding, Pads, Pair, output_size, pair, resolve_padding
from metric_zoo.ops.rules import rule_of


class Window(NamedTuple):
    """Where a convolution's windows lie: every pair is (height, width), in pixels or cells."""

    kernel_size: Pair
    stride: Pair
    pads: Pads
    dilation: Pair
    groups: int
    size: Pair = cast("Pair", None)
    """Of the output. In a program that is compiled it is None and nobody reads it: there the operator finds it."""

    @property
    def cells(self) -> int:
        """Samples of one window, K."""
        return self.kernel_size[0] * self.kernel_size[1]

    def as_lists(self) -> tuple[list[int], list[int], list[int], int]:
        """stride, padding, dilation and groups as the operator takes them."""
        (top, bottom), (left, right) = self.pads
        return list(self.stride), [top, bottom, left, right], list(self.dilation), self.groups


def check_window(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: int | tuple[int, int],
    padding: Padding,
    dilation: int | tuple[int, int],
    groups: int,
) -> Window:
    """Check input, weight and bias against each other; resolve the rest.

    Raises:
        MetricZooError: naming the tensor or option and the shape, dtype, device or value expected.
    """
    _check_kernel(input, weight, bias, groups)
    window = _resolved(input, weight, stride, padding, dilation, groups)
    shape = (input.shape[-2], input.shape[-1])
    return window._replace(size=output_size(shape, window.kernel_size, window.stride, window.pads, window.dilation))


def window_for(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: int | tuple[int, int],
    padding: Padding,
    dilation: int | tuple[int, int],
    groups: int,
) -> Window:
    """`check_window` where the call runs. A compiler follows every check: of what it compiles the types alone are
    checked here, before they are cast; the operator checks the shapes, and lets a field of size 1 serve all.

    Raises:
        MetricZooError: as `check_window`.
    """
    if torch.compiler.is_compiling():
        _check_alike("weight", weight, input)
        if bias is not None:
            _check_alike("bias", bias, input)
        if isinstance(padding, Pads) and isinstance(stride, tuple) and isinstance(dilation, tuple):  # a layer's
            return Window((weight.shape[2], weight.shape[3]), stride, padding, dilation, groups)
        return _resolved(input, weight, stride, padding, dilation, groups)
    return check_window(input, weight, bias, stride, padding, dilation, groups)


def _resolved(
    input: Tensor,
    weight: Tensor,
    stride: int | tuple[int, int],
    padding: Padding,
    dilation: int | tuple[int, int],
    groups: int,
) -> Window:
    stride, dilation = pair(stride, "stride", 1), pair(dilation, "dilation", 1)
    kernel_size = (weight.shape[2], weight.shape[3])
    pads = resolve_padding(padding, (input.shape[-2], input.shape[-1]), kernel_size, stride, dilation)
    return Window(kernel_size, stride, pads, dilation, groups)


def autocasts(tensor: Tensor) -> bool:
    """Whether autocast chooses the dtype: of float64 it does not, and the meta device does not know it."""
    device = tensor.device.type
    return device != "meta" and tensor.dtype != torch.float64 and torch.is_autocast_enabled(device)


def cast_dtype(tensor: Tensor) -> torch.dtype:
    """In which `torch.nn.functional.conv2d` would take a floating-point tensor: autocast's, or its own."""
    return torch.get_autocast_dtype(tensor.device.type) if autocasts(tensor) else tensor.dtype


def _check_kernel(input: Tensor, weight: Tensor, bias: Tensor | None, groups: int) -> None:
    if input.dim() != 4:
        raise MetricZooError(f"input has shape {tuple(input.shape)}, expected (B, C, H, W)")
    if weight.dim() != 4:
        raise MetricZooError(f"weight has shape {tuple(weight.shape)}, expected (O, C/groups, kh, kw)")
    if not input.is_floating_point():
        raise MetricZooError(f"input has dtype {input.dtype}, expected a floating-point type")
    if min(weight.shape[2:]) < 1:
        raise MetricZooError(f"weight has shape {tuple(weight.shape)}, expected a kernel of at least one cell")
    if groups < 1 or weight.shape[0] % groups or input.shape[1] != weight.shape[1] * groups:
        raise MetricZooError(
            f"input has {input.shape[1]} channels, weight {tuple(weight.shape)} with groups={groups} "
            f"expects {weight.shape[1] * groups}"
        )
    _check_alike("weight", weight, input)
    if bias is not None:
        if tuple(bias.shape) != (weight.shape[0],):
            raise MetricZooError(f"bias has shape {tuple(bias.shape)}, expected ({weight.shape[0]},)")
        _check_alike("bias", bias, input)


def _check_alike(name: str, tensor: Tensor, input: Tensor) -> None:
    if tensor.device != input.device:
        raise MetricZooError(f"{name} is on {tensor.device}, input on {input.device}: move one of them")
    if tensor.dtype != input.dtype and cast_dtype(tensor) != cast_dtype(input):
        way = "" if torch.float64 in (tensor.dtype, input.dtype) else " or use autocast"
        raise MetricZooError(f"input has dtype {input.dtype}, {name} {tensor.dtype}: cast one of them{way}")


def check_fields(name: str, field: Tensor, input: Tensor, per_group: int, window: Window) -> int:
    """Check a ``(B, per_group*G, Ho, Wo)`` field of an input; return G.

    Raises:
        MetricZooError: naming the field and the shape, device or dtype expected.
    """
    if torch.compiler.is_compiling():  # as for `window_for`
        check_real_field(name, field, input)
        return field.shape[1] // per_group
    size = window.size
    channels = field.shape[1] if field.dim() == 4 else 0
    sample_groups = channels // per_group
    wanted = (input.shape[0], per_group * max(sample_groups, 1), *size)
    if tuple(field.shape) != wanted or input.shape[1] % sample_groups:
        raise MetricZooError(
            f"{name} has shape {tuple(field.shape)}, expected ({input.shape[0]}, {per_group}*G, {size[0]}, {size[1]}) "
            f"with G dividing the input's {input.shape[1]} channels"
        )
    check_real_field(name, field, input)
    return sample_groups


def check_real_field(name: str, field: Tensor, input: Tensor) -> None:
    """Check the device and that the dtype is floating point.

    Raises:
        MetricZooError: naming the field.
    """
    if field.device != input.device:
        raise MetricZooError(f"{name} is on {field.device}, input on {input.device}: move one of them")
    if not field.is_floating_point():
        raise MetricZooError(f"{name} has dtype {field.dtype}, expected a floating-point type")


def check_mask(mask: Tensor | None, input: Tensor, fields: int, window: Window) -> None:
    """Check a ``(B, G*K, Ho, Wo)`` mask for ``fields`` = G*K.

    Raises:
        MetricZooError: naming the shape, device or dtype expected.
    """
    if mask is None:
        return
    if torch.compiler.is_compiling():
        check_real_field("mask", mask, input)
        return
    wanted = (input.shape[0], fields, *window.size)
    if tuple(mask.shape) != wanted:
        raise MetricZooError(f"mask has shape {tuple(mask.shape)}, expected {wanted}")
    check_real_field("mask", mask, input)


def check_sample_field(field: Tensor, mask: Tensor | None, sampling: str, input: Tensor, window: Window) -> None:
    """Check the field and mask of `metric_zoo.ops.dispatch.sampled`.

    Raises:
        MetricZooError: naming the shape, device, dtype or sampling expected.
    """
    rule = rule_of(sampling)
    rule.check(window.kernel_size)
    batch, channels = input.shape[:2]
    components = rule.numbers(window.kernel_size, field.shape[3] if field.dim() == 6 else 0)
    cells = window.cells if rule.per_cell else 1
    groups = field.shape[1] if field.dim() == 6 else 0
    wanted = (batch, groups, cells, components, *window.size)
    alike = field.dim() == 6 and all(
        size == full or (size == 1 and axis not in (1, 3))
        for axis, (size, full) in enumerate(zip(field.shape, wanted, strict=True))
    )
    if not alike or groups < 1 or channels % groups:
        raise MetricZooError(
            f"field has shape {tuple(field.shape)}, expected ({batch}, G, {cells}, {components}, {window.size[0]}, "
            f"{window.size[1]}) or 1 for any size but the second and the fourth, with G dividing the input's "
            f"{channels} channels"
        )
    check_real_field("field", field, input)
    if mask is not None:
        wanted = (batch, groups, window.cells, *window.size)
        if tuple(mask.shape) != wanted:
            raise MetricZooError(f"mask has shape {tuple(mask.shape)}, expected {wanted}")
        check_real_field("mask", mask, input)
