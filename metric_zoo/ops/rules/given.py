"""Rules of fields that hold every sample's place themselves."""

from __future__ import annotations

from torch import Tensor

from metric_zoo.geometry.sampling import grid_offsets
from metric_zoo.ops.rules.rule import Form, Rule


class Offsets(Rule):
    """``"offset"``: (dy, dx) from the ordinary grid."""

    name = "offset"
    form = Form.OFFSET
    per_cell = True

    def numbers(self, kernel_size: tuple[int, int], given: int) -> int:
        return 2

    def places(self, field: Tensor, kernel_size: tuple[int, int], dilation: tuple[int, int]) -> tuple[Tensor, Tensor]:
        y, x = field.unbind(3)
        grid_y, grid_x = grid_columns(kernel_size, dilation, field)
        return grid_y + y, grid_x + x


class Positions(Rule):
    """``"position"``: (dy, dx) from the window's centre."""

    name = "position"
    form = Form.POSITION
    per_cell = True

    def numbers(self, kernel_size: tuple[int, int], given: int) -> int:
        return 2

    def places(self, field: Tensor, kernel_size: tuple[int, int], dilation: tuple[int, int]) -> tuple[Tensor, Tensor]:
        y, x = field.expand(-1, -1, kernel_size[0] * kernel_size[1], -1, -1, -1).unbind(3)
        return y, x


def grid_columns(kernel_size: tuple[int, int], dilation: tuple[int, int], like: Tensor) -> tuple[Tensor, Tensor]:
    """y and x of the ordinary grid, ``(K, 1, 1)`` each, in the dtype and on the device of a tensor."""
    x, y = grid_offsets(kernel_size, dilation).to(device=like.device, dtype=like.dtype)[..., None, None].unbind(1)
    return y, x


GIVEN = (Offsets(), Positions())
