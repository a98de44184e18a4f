"""Rules in which a few numbers a window move its cells by a linear map and a shift."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from metric_zoo.geometry.sampling import grid_offsets
from metric_zoo.ops.rules.given import grid_columns
from metric_zoo.ops.rules.rule import Form, Rule


class Tabulated(Rule):
    """Places are linear in the field: the grid, plus its numbers times a table."""

    form = Form.LINEAR

    def places(self, field: Tensor, kernel_size: tuple[int, int], dilation: tuple[int, int]) -> tuple[Tensor, Tensor]:
        grid_y, grid_x = grid_columns(kernel_size, dilation, field)
        _, moved_y, moved_x = self.sums(field, kernel_size, dilation)
        return grid_y + moved_y, grid_x + moved_x

    def sums(self, field: Tensor, kernel_size: tuple[int, int], dilation: tuple[int, int]) -> list[Tensor]:
        """The field's numbers times each of the table's three columns, ``(B, G, K, Ho, Wo)``.

        Term by term: a product of matrices might be one of TensorFloat-32, or autocast's, and move samples.
        """
        table = self.table(kernel_size, dilation, field.shape[3])
        assert table is not None
        columns = table.to(device=field.device, dtype=field.dtype)[..., None, None].unbind(2)
        values = field.unbind(3)  # (B, G, 1, Ho, Wo) each
        terms = ([v * t for v, t in zip(values, c.unbind(1), strict=True)] for c in columns)
        return [sum(others, first) for first, *others in terms]


class Map(Tabulated):
    """Linear maps of the plane, in (x, y) as users write them."""

    def __init__(self, name: str, entries: Sequence[Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]]) -> None:
        """``entries`` say for each number where a unit of it moves the cells at (x, y), as (x, y)."""
        self.name, self._entries = name, entries

    def numbers(self, kernel_size: tuple[int, int], given: int) -> int:
        return len(self._entries)

    def table(self, kernel_size: tuple[int, int], dilation: tuple[int, int], numbers: int) -> Tensor:
        x, y = grid_offsets(kernel_size, dilation).unbind(1)
        moved = (entry(x, y) for entry in self._entries)
        return torch.stack([torch.stack((torch.zeros_like(x), to_y, to_x), 1) for to_x, to_y in moved], 1)


_SHIFT = (
    lambda x, y: (torch.ones_like(x), torch.zeros_like(x)),
    lambda x, y: (torch.zeros_like(x), torch.ones_like(x)),
)

MAPS = (
    # A - I by rows, then the shift.
    Map(
        "affine",
        (
            lambda x, y: (x, torch.zeros_like(x)),
            lambda x, y: (y, torch.zeros_like(x)),
            lambda x, y: (torch.zeros_like(x), x),
            lambda x, y: (torch.zeros_like(x), y),
            *_SHIFT,
        ),
    ),
    # [[1 + a, -b], [b, 1 + a]]: a, b, then the shift.
    Map("similar", (lambda x, y: (x, y), lambda x, y: (-y, x), *_SHIFT)),
    # A - I of a symmetric A: its first, mixed and last entry, then the shift.
    Map(
        "symmetric",
        (
            lambda x, y: (x, torch.zeros_like(x)),
            lambda x, y: (y, x),
            lambda x, y: (torch.zeros_like(x), y),
            *_SHIFT,
        ),
    ),
)
