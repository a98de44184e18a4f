"""Rules of fields that hold the radius of a star-shaped ball, as harmonics of its logarithm."""

from __future__ import annotations

import torch
from torch import Tensor

from metric_zoo.errors import MetricZooError
from metric_zoo.geometry.sampling import grid_offsets
from metric_zoo.geometry.star import LARGEST, harmonics_at
from metric_zoo.ops.rules.given import grid_columns
from metric_zoo.ops.rules.linear import Tabulated
from metric_zoo.ops.rules.rule import Form


class Star(Tabulated):
    """``"star"``: a_0, then a_n, b_n for n = 1, ...; ``"shifted_star"``: these, and a shift (x, y)."""

    form = Form.RADIAL

    def __init__(self, name: str, shift: int) -> None:
        self.name, self._shift = name, shift

    def numbers(self, kernel_size: tuple[int, int], given: int) -> int:
        harmonics = given - self._shift
        return given if harmonics > 0 and harmonics % 2 else 3 + self._shift

    def check(self, kernel_size: tuple[int, int]) -> None:
        if kernel_size[0] * kernel_size[1] == 1:
            raise MetricZooError(f"a kernel of {kernel_size[0]}x{kernel_size[1]} has no cell beside its middle to move")

    def table(self, kernel_size: tuple[int, int], dilation: tuple[int, int], numbers: int) -> Tensor:
        x, y = grid_offsets(kernel_size, dilation).unbind(1)
        exponents = harmonics_at(torch.atan2(y, x), (numbers - self._shift) // 2)
        nothing = torch.zeros_like(exponents)
        table = torch.stack((exponents, nothing, nothing), 2)
        if not self._shift:
            return table
        one, none = torch.ones_like(x), torch.zeros_like(x)
        shift = torch.stack((torch.stack((none, none, one), 1), torch.stack((none, one, none), 1)), 1)
        return torch.cat((table, shift), 1)

    def places(self, field: Tensor, kernel_size: tuple[int, int], dilation: tuple[int, int]) -> tuple[Tensor, Tensor]:
        grid_y, grid_x = grid_columns(kernel_size, dilation, field)
        exponent, moved_y, moved_x = self.sums(field, kernel_size, dilation)
        radius = exponent.clamp_max(LARGEST).exp()
        return radius * grid_y + moved_y, radius * grid_x + moved_x


STARS = (Star("star", 0), Star("shifted_star", 2))
