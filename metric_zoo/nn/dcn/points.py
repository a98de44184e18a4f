"""Where a window of DCNv3 and DCNv4 samples, and in which order."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Points(NamedTuple):
    """The points of one window, in the published order: x OUTER, y inner.

    Attributes:
        kernel_size: cells a side.
        dilation: pixels between cells, before the scale.
        scale: factor on the grid and on the offsets alike.
        remove_center: whether the middle cell is left out.
    """

    kernel_size: int
    dilation: int
    scale: float
    remove_center: bool

    @property
    def count(self) -> int:
        """Samples of one window, P."""
        return self.kernel_size**2 - self.remove_center

    def grid(self, device: torch.device, dtype: torch.dtype) -> Tensor:
        """``(P, 2)``, (dy, dx) from the pixel, in pixels, before any offset."""
        cells = torch.arange(self.kernel_size, device=device, dtype=dtype)
        steps = (cells * self.dilation - self.dilation * (self.kernel_size - 1) // 2) * self.scale
        grid = torch.stack((steps.repeat(self.kernel_size), steps.repeat_interleave(self.kernel_size)), 1)
        middle = self.count // 2
        return torch.cat((grid[:middle], grid[middle + 1 :])) if self.remove_center else grid

    def positions(self, offset: Tensor, groups: int) -> Tensor:
        """``(B, H, W, G*P*2)``, (x, y) per point -> ``(B, G, P, 2, H, W)``, (dy, dx) from the pixel, in pixels."""
        x, y = offset.permute(0, 3, 1, 2).unflatten(1, (groups, self.count, 2)).unbind(3)
        # Autocast's types are too coarse for the sum, though not for what is predicted.
        grid = self.grid(offset.device, torch.promote_types(offset.dtype, torch.float32))
        # Stacked, the coordinates change places and every one gets an image to itself, in one pass.
        return torch.add(grid[..., None, None], torch.stack((y, x), 3), alpha=self.scale)

    def factors(self, mask: Tensor, groups: int) -> Tensor:
        """``(B, H, W, G*P) -> (B, G, P, H, W)``."""
        return mask.permute(0, 3, 1, 2).unflatten(1, (groups, self.count)).contiguous()
