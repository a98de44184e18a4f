"""A dense kernel as a sum of separable ones: truncated singular value decomposition (McGraw 2015)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class LowRank:
    """``rank`` pairs of a column and a row, each of M samples: 2 M rank reads a pixel.

    Attributes:
        columns, rows: ``(rank, M)``.
    """

    columns: Tensor
    rows: Tensor

    @classmethod
    def fit(cls, target: Tensor, rank: int) -> LowRank:
        """The best approximation of ``(M, M)`` in the least squares."""
        left, values, right = torch.linalg.svd(target.double())
        root = values[:rank].sqrt()
        return cls((left[:, :rank] * root).T.to(target), (right[:rank] * root[:, None]).to(target))

    @property
    def reads(self) -> int:
        """Of a pixel."""
        return 2 * self.rows.numel()

    def kernel(self) -> Tensor:
        """``(M, M)``."""
        return self.columns.T @ self.rows

    def apply(self, image: Tensor) -> Tensor:
        """Filter ``(B, 1, H, W)``; outside, the border is repeated."""
        padded = F.pad(image, (self.rows.shape[1] // 2,) * 4, mode="replicate")
        along = F.conv2d(padded, self.rows[:, None, None])
        return F.conv2d(along, self.columns[None, :, :, None])
