"""Norms and activations as the published networks arrange them, which decides the keys of their checkpoints."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {"GELU": nn.GELU, "ReLU": nn.ReLU, "SiLU": nn.SiLU}
NORMS = ("LN", "BN")


class Permute(nn.Module):
    """A view of an image whose axes have changed places."""

    def __init__(self, *axes: int) -> None:
        super().__init__()
        self.axes = axes

    def forward(self, input: Tensor) -> Tensor:
        """``(a, b, c, d) -> `` the same in another order."""
        return input.permute(self.axes)

    def extra_repr(self) -> str:
        """The order."""
        return ", ".join(map(str, self.axes))


def channels_last() -> Permute:
    """``(B, C, H, W) -> (B, H, W, C)``."""
    return Permute(0, 2, 3, 1)


def channels_first() -> Permute:
    """``(B, H, W, C) -> (B, C, H, W)``."""
    return Permute(0, 3, 1, 2)


def norm_to_last(norm: str, channels: int, like: dict[str, Any]) -> nn.Sequential:
    """``(B, C, H, W) -> (B, H, W, C)``, normalised."""
    if norm == "BN":
        return nn.Sequential(nn.BatchNorm2d(channels, **like), channels_last())
    return nn.Sequential(channels_last(), layer_norm(channels, like))


def layer_norm(channels: int, like: dict[str, Any]) -> nn.LayerNorm:
    """Over the last axis, with the published epsilon."""
    return nn.LayerNorm(channels, eps=1e-6, **like)
