"""Spatial aggregation: a sum of samples with factors, and no kernel."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from metric_zoo.nn.field import Field, convolve
from metric_zoo.ops.padding import Pads


@dataclass
class _Row:
    """A window whose cells lie in a row, so that there may be any number of them: where they read, positions say."""

    kernel_size: tuple[int, int]
    groups: int
    stride: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)


def aggregate(value: Tensor, positions: Tensor, factors: Tensor) -> Tensor:
    r"""At every pixel the sum of a group's samples, times their factors.

    .. math:: out[g](p) = \sum_i m_{gi}(p)\, value[g](p + y_{gi}(p))

    with bilinear reads that are zero outside the image.

    Args:
        value: ``(B, H, W, C)``; G divides C.
        positions: ``(B, G, P, 2, H, W)``, (dy, dx) in pixels.
        factors: ``(B, G, P, H, W)``.

    Returns:
        ``(B, H, W, C)``.

    Raises:
        MetricZooError: for tensors that do not fit together.
    """
    channels, cells = value.shape[-1], positions.shape[2]
    if cells % 2 == 0:  # the middle of the row then lies half a pixel to the right
        positions = positions - positions.new_tensor([0.0, 0.5])[:, None, None]
    weight, row = value.new_ones(channels, 1, 1, cells), _Row((1, cells), channels)
    pads = Pads((0, 0), ((cells - 1) // 2, cells // 2))
    field = Field(positions, factors, "position")
    return convolve(value.permute(0, 3, 1, 2), weight, None, field, row, pads).permute(0, 2, 3, 1)
