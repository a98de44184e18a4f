"""Rules in which the rows of a window, or its columns, bend: a cell moves by the steps from the middle out to it."""

from __future__ import annotations

import torch
from torch import Tensor

from metric_zoo.errors import MetricZooError
from metric_zoo.geometry.sampling import grid_offsets
from metric_zoo.ops.rules.linear import Tabulated

AXES = ("x", "y")


class Snake(Tabulated):
    """``"snake_x"``: along x, moved in y; ``"snake_y"``: along y, moved in x."""

    def __init__(self, axis: str) -> None:
        self.name, self.axis = f"snake_{axis}", axis

    def check(self, kernel_size: tuple[int, int]) -> None:
        if not self.numbers(kernel_size, 0):
            side = "width" if self.axis == "x" else "height"
            raise MetricZooError(
                f"axis={self.axis!r}: a kernel of {kernel_size[0]}x{kernel_size[1]} has no cells beside its middle to "
                f"bend; expected a {side} of 3 or more"
            )

    def numbers(self, kernel_size: tuple[int, int], given: int) -> int:
        return sum(map(_moves, self._along(kernel_size)))

    def table(self, kernel_size: tuple[int, int], dilation: tuple[int, int], numbers: int) -> Tensor:
        x, y = grid_offsets(kernel_size).unbind(1)
        along, across = (x, y) if self.axis == "x" else (y, x)
        # Of tensors made of lists exporters lose hold; cells are picked one by one.
        moving = [number for number, cell in enumerate(self._along(kernel_size)) if _moves(cell)]
        step, line = (torch.stack([values[number] for number in moving]) for values in (along, across))
        passed = (across[:, None] == line) & (along[:, None] * step > 0) & (step.abs() <= along[:, None].abs())
        moved, nothing = passed.double(), torch.zeros_like(passed, dtype=torch.float64)
        return torch.stack((nothing, moved, nothing) if self.axis == "x" else (nothing, nothing, moved), 2)

    def _along(self, kernel_size: tuple[int, int]) -> list[float]:
        """Every cell's place on the axis, in cells from the middle."""
        height, width = kernel_size
        if self.axis == "x":
            return [x - (width - 1) / 2 for _ in range(height) for x in range(width)]
        return [y - (height - 1) / 2 for y in range(height) for _ in range(width)]


def _moves(along: float) -> bool:
    """The middle cell stays on the grid; of an even number the two middle ones."""
    return abs(along) >= 1


SNAKES = tuple(Snake(axis) for axis in AXES)
