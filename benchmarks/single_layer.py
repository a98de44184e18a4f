"""Networks of the benchmarks' own: what timm and torchvision have no name for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from metric_zoo.errors import RecipeError, suggest


class SingleLayer(nn.Module):
    """One convolution, every channel by itself, as many pixels out as in (Metric Convolutions, ICCV 2025,
    https://arxiv.org/abs/2406.05400, denoising).

    Args:
        channels: of the image.
        kernel_size: odd.
    """

    def __init__(self, channels: int = 1, kernel_size: int = 5) -> None:
        super().__init__()
        if kernel_size % 2 == 0:
            raise RecipeError(f"single-layer: kernel_size={kernel_size}, expected an odd one")
        self.conv = nn.Conv2d(channels, channels, kernel_size, padding=kernel_size // 2, groups=channels, bias=False)

    def forward(self, image: Tensor) -> Tensor:
        """``(B, C, H, W) -> (B, C, H, W)``."""
        return self.conv(image)


@dataclass(frozen=True)
class Network:
    """How it is built from ``channels`` and a recipe's options, and which of its convolutions to swap by default."""

    build: Callable[..., nn.Module]
    where: str


NETWORKS = {"single-layer": Network(SingleLayer, "stem+all")}


def get_network(name: str) -> Network:
    """By name.

    Raises:
        RecipeError: if there is none.
    """
    if name not in NETWORKS:
        raise RecipeError(f"unknown network {name!r}{suggest(name, NETWORKS)}; known: {', '.join(NETWORKS)}")
    return NETWORKS[name]
