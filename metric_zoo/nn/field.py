"""Where a layer samples, said once. Vectors are (dy, dx) in here; what users see is (x, y)."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from metric_zoo.ops.backends.torch import sample_positions
from metric_zoo.ops.dispatch import sampled
from metric_zoo.ops.padding import Pads, output_size
from metric_zoo.ops.window import Window, check_sample_field, window_for


class Windows(Protocol):
    """What a convolution says of its windows."""

    @property
    def kernel_size(self) -> tuple[int, int]: ...
    @property
    def stride(self) -> tuple[int, int]: ...
    @property
    def dilation(self) -> tuple[int, int]: ...
    @property
    def groups(self) -> int: ...


class Field(NamedTuple):
    """What the positions of samples follow from, and how much each counts: as `metric_zoo.ops.dispatch.sampled` asks.

    Attributes:
        values: ``(B, G, K, n, Ho, Wo)``; any size but G and n may be 1, where all share one.
        mask: ``(B, G, K, Ho, Wo)``, a factor on every sample; None where all count fully.
        rule: what values are: ``"offset"``, (dy, dx) in pixels from the ordinary grid; ``"position"``, (dy, dx) from
            the window's centre; or a formula's name, of `metric_zoo.ops.rules.RULES`, which documents its numbers.
    """

    values: Tensor
    mask: Tensor | None
    rule: str

    @classmethod
    def at(cls, positions: Tensor, groups: int) -> Field:
        """At (x, y) from each window's centre, ``(B or 1, G*K, 2, Ho, Wo)``; G groups."""
        return cls(positions.unflatten(1, (groups, -1)).flip(3), None, "position")

    def positions(self, size: tuple[int, int], layer: Windows, pads: Pads) -> Tensor:
        """``(B or 1, G*K, 2, Ho, Wo)``, (x, y) in pixels relative to each window's centre.

        Args:
            size: of the input, (height, width).
            layer: a convolution, whose windows these are.
            pads: of it.
        """
        grid = (layer.kernel_size, layer.stride, pads, layer.dilation)
        return sample_positions(self.values, self.rule, Window(*grid, layer.groups, output_size(size, *grid)))

    @property
    def counts_fully(self) -> bool:
        """Whether every factor of the mask is 1."""
        return self.mask is None or bool((self.mask == 1).all())


def centres(size: tuple[int, int], layer: Windows, pads: Pads) -> tuple[Tensor, Tensor]:
    """Columns ``(Wo)`` and rows ``(Ho)`` of the windows' centres, float64, in pixels of the input, whose first is 0.

    Args:
        size, layer, pads: as in `Field.positions`.
    """
    axes = zip(
        *(output_size(size, layer.kernel_size, layer.stride, pads, layer.dilation), layer.kernel_size),
        *(layer.stride, layer.dilation, pads),
        strict=True,
    )
    rows, columns = (
        torch.arange(count, dtype=torch.float64) * stride + (dilation * (kernel - 1) / 2 - before)
        for count, kernel, stride, dilation, (before, _) in axes
    )
    return columns, rows


def convolve(input: Tensor, weight: Tensor, bias: Tensor | None, field: Field, layer: Windows, pads: Pads) -> Tensor:
    """The sampled convolution.

    Args:
        input: ``(B, C, H, W)``.
        weight, bias: of the kernel.
        field: where it is read.
        layer, pads: as in `Field.positions`.

    Raises:
        MetricZooError: for tensors that do not fit together.
    """
    window = window_for(input, weight, bias, layer.stride, pads, layer.dilation, layer.groups)
    if not torch.compiler.is_compiling():
        check_sample_field(field.values, field.mask, field.rule, input, window)
    return sampled(input, weight, bias, field.values, field.mask, field.rule, window)
