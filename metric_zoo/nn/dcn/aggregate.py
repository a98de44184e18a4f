"""Spatial aggregation: a sum of samples with factors, and no kernel."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from metric_zoo.nn.field import Field, convolve
from metric_zoo.ops.padding import Pads


@dataclass
class Row:
    """A window whose cells lie in a row, so that there may be any number of them: where they read, positions say.

    Attributes:
        kernel_size: (1, P).
        groups: channels of the image, each with a kernel of its own.
    """

    kernel_size: tuple[int, int]
    groups: int
    stride: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)


def aggregate(value: Tensor, positions: Tensor, factors: Tensor, row: Row) -> Tensor:
    r"""At every pixel the sum of a group's samples, times their factors.

    .. math:: out[g](p) = \sum_i m_{gi}(p)\, value[g](p + y_{gi}(p))

    with bilinear reads that are zero outside the image.

    Args:
        value: ``(B, H, W, C)``; G divides C.
        positions: ``(B, G, P, 2, H, W)``, (dy, dx) in pixels.
        factors: ``(B, G, P, H, W)``.
        row: of P cells and C channels.

    Returns:
        ``(B, H, W, C)``.

    Raises:
        MetricZooError: for tensors that do not fit together.
    """
    _, cells = row.kernel_size
    if cells % 2 == 0:  # the middle of the row then lies half a pixel to the right
        positions = positions - positions.new_tensor([0.0, 0.5])[:, None, None]
    weight, field = value.new_ones(row.groups, 1, 1, cells), Field(positions, factors, "position")
    pads = Pads((0, 0), ((cells - 1) // 2, cells // 2))
    return convolve(value.permute(0, 3, 1, 2), weight, None, field, row, pads).permute(0, 2, 3, 1)
