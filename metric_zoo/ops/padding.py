"""Padding in every form a convolution takes, and the output size that follows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias, cast

import torch

from metric_zoo.errors import MetricZooError

if TYPE_CHECKING:
    from torch import nn

Pair: TypeAlias = "tuple[int, int]"
Padding: TypeAlias = "int | str | tuple[int, int] | tuple[tuple[int, int], tuple[int, int]]"
PaddingMode: TypeAlias = Literal["zeros", "reflect", "replicate", "circular"]


class Pads(NamedTuple):
    """Padding that has been resolved, and is not checked again: ``((top, bottom), (left, right))`` in pixels."""

    height: Pair
    width: Pair

    def __repr__(self) -> str:
        """As it is given."""
        return repr(tuple(self))


class Applied(Pads):
    """None is left: the framework has padded the input by ``border``, which was ``image`` before."""

    border: Pads
    image: torch.Tensor


def applied(border: Pads, image: torch.Tensor) -> Applied:
    """What is left of ``border`` once an image has it."""
    left = Applied((0, 0), (0, 0))
    left.border, left.image = border, image
    return left


def unpadded(input: torch.Tensor, pads: Pads) -> tuple[torch.Tensor, Pads]:
    """Of an input, whose pads these are: the image alone, and all that it gets of padding, now and before."""
    return (pads.image, pads.border) if isinstance(pads, Applied) else (input, pads)


WHOLE = cast("tuple[type[int], ...]", (int, torch.SymInt))
"""Types of a whole number; sizes that a compiler leaves open, and padding that follows from them, are of the second."""

NO_PADS = Pads((0, 0), (0, 0))


def pair(value: int | tuple[int, int], name: str, minimum: int) -> Pair:
    """``2 -> (2, 2)``.

    Raises:
        MetricZooError: if it is not one or two whole numbers of at least ``minimum``.
    """
    if isinstance(value, (tuple, list)) and len(value) == 2:
        first, second = value
    else:
        first = second = value
    # Written out: a compiler follows every step of it.
    if not isinstance(first, WHOLE) or not isinstance(second, WHOLE) or first < minimum or second < minimum:
        raise MetricZooError(f"{name} is {value!r}, expected one or two whole numbers >= {minimum}")
    return first, second


def sizes_of(conv: nn.Conv2d) -> tuple[Pair, Pair, Pair]:
    """Kernel size, stride and dilation, which the framework declares as tuples of any length."""
    return cast("tuple[Pair, Pair, Pair]", (conv.kernel_size, conv.stride, conv.dilation))


def resolve_padding(padding: Padding, size: Pair, kernel_size: Pair, stride: Pair, dilation: Pair) -> Pads:
    """Pixels to add: ``((top, bottom), (left, right))``.

    Args:
        padding: whole number(s) as in `torch.nn.Conv2d`; four as ``((top, bottom), (left, right))``; ``"valid"``; or
            ``"same"``, which keeps ``ceil(size / stride)`` pixels, the surplus at the bottom right (for stride 1
            torch's rule, for larger ones TensorFlow's, which timm's ``tf_`` models use).
        size: the input's (height, width).

    Raises:
        MetricZooError: for anything else.
    """
    if isinstance(padding, Pads):
        return padding
    if isinstance(padding, str):
        return _by_name(padding, size, kernel_size, stride, dilation)
    if isinstance(padding, (tuple, list)) and len(padding) == 2 and isinstance(padding[0], (tuple, list)):
        return Pads(pair(padding[0], "padding", 0), pair(padding[1], "padding", 0))
    ph, pw = pair(padding, "padding", 0)  # pyright: ignore[reportArgumentType]  (of four numbers it was said above)
    return Pads((ph, ph), (pw, pw))


def _by_name(padding: str, size: Pair, kernel_size: Pair, stride: Pair, dilation: Pair) -> Pads:
    if padding == "valid":
        return NO_PADS
    if padding != "same":
        raise MetricZooError(f"padding is {padding!r}, expected whole numbers, 'same' or 'valid'")
    return Pads(*(_same(*axis) for axis in zip(size, kernel_size, stride, dilation, strict=True)))


def _same(size: int, kernel: int, stride: int, dilation: int) -> Pair:
    reach = (kernel - 1) * dilation
    # With stride 1 it is the same for any size, also for one that a compiler leaves open.
    # Whole parts of positive numbers alone: ONNX rounds those of negative ones to the other side.
    total = reach if stride == 1 else _positive((size - 1) // stride * stride + reach + 1 - size)
    return total // 2, total - total // 2


def _positive(number: Any) -> Any:
    """0 at least, of a number or of a tracer's tensor."""
    return number.clamp_min(0) if isinstance(number, torch.Tensor) else max(number, 0)


def is_open(padding: Padding, stride: Pair, side: int) -> bool:
    """Whether the padding follows from a size that a compiler or a tracer leaves open, ``side`` being one of them.

    It is then to be applied by the framework, which knows open sizes, before an operator sees the input.
    """
    if padding != "same" or stride == (1, 1):
        return False
    return torch.compiler.is_compiling() or not isinstance(side, int)


def output_size(size: Pair, kernel_size: Pair, stride: Pair, pads: Pads, dilation: Pair) -> Pair:
    """The (height, width) a convolution yields.

    Raises:
        MetricZooError: if the padded input is smaller than the kernel.
    """
    (top, bottom), (left, right) = pads
    result = (
        (size[0] + (top + bottom) - dilation[0] * (kernel_size[0] - 1) - 1) // stride[0] + 1,
        (size[1] + (left + right) - dilation[1] * (kernel_size[1] - 1) - 1) // stride[1] + 1,
    )
    if result[0] < 1 or result[1] < 1:  # not their least: which of two symbolic sizes it is would become a guard
        raise MetricZooError(
            f"input of {size[0]}x{size[1]} px with padding {pads} is smaller than the kernel {kernel_size} "
            f"with dilation {dilation}"
        )
    return result
