"""Denoisers that learn nothing here, to stand in the same table: filters whose strength is tuned on training images,
and networks that others trained."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from torch import Tensor, nn

from metric_zoo.benchmarks.data.splits import ImageSet
from metric_zoo.benchmarks.dncnn import LEVELS, load_dncnn
from metric_zoo.benchmarks.peer_settings import SETTINGS
from metric_zoo.benchmarks.recipe_sections import DataConfig
from metric_zoo.errors import DataError, RecipeError, suggest

_TUNED_ON = 8
"""Images; more make no filter of one parameter better."""

Denoise = Callable[[np.ndarray, float, float], np.ndarray]
"""From an image ``(H, W, C)`` in [0, 1], a strength and the noise's standard deviation to one like it."""


@dataclass(frozen=True)
class Filter:
    """Of one parameter, ``strength``, between ``low`` and ``high`` times the noise's standard deviation (or, where it
    is ``absolute``, between those)."""

    denoise: Denoise
    low: float
    high: float
    absolute: bool = False


def _gaussian(image: np.ndarray, strength: float, noise: float) -> np.ndarray:
    from skimage.filters import gaussian

    return gaussian(image, strength, channel_axis=-1, **SETTINGS["gaussian"])


def _bilateral(image: np.ndarray, strength: float, noise: float) -> np.ndarray:
    from skimage.restoration import denoise_bilateral

    settings = SETTINGS["bilateral"]
    return np.stack(
        [denoise_bilateral(image[..., c], sigma_color=strength, **settings) for c in range(image.shape[2])], -1
    )


def _total_variation(image: np.ndarray, strength: float, noise: float) -> np.ndarray:
    from skimage.restoration import denoise_tv_chambolle

    return denoise_tv_chambolle(image, strength, channel_axis=-1, **SETTINGS["total-variation"])


def _nonlocal_means(image: np.ndarray, strength: float, noise: float) -> np.ndarray:
    from skimage.restoration import denoise_nl_means

    found = denoise_nl_means(image, h=strength, sigma=noise, channel_axis=-1, **SETTINGS["nonlocal-means"])
    return found.reshape(image.shape)  # it drops a single channel


def _bm3d(image: np.ndarray, strength: float, noise: float) -> np.ndarray:
    try:
        from bm3d import bm3d  # pyright: ignore[reportMissingImports] - not for every use: no dependency
    except ImportError:
        raise DataError(
            "the peer 'bm3d' needs its authors' package, free for non-commercial use: pip install bm3d"
        ) from None

    return np.stack([bm3d(image[..., c], strength) for c in range(image.shape[2])], -1)


FILTERS = {
    "gaussian": Filter(_gaussian, 0.2, 5.0, absolute=True),  # pixels
    "bilateral": Filter(_bilateral, 0.3, 6.0),
    "total-variation": Filter(_total_variation, 0.1, 4.0),
    "nonlocal-means": Filter(_nonlocal_means, 0.2, 2.0),
    "bm3d": Filter(_bm3d, 1.0, 1.0),  # it takes the noise itself
}
_NETWORKS = {f"dncnn-{sigma:g}": level for level, sigma in LEVELS.items()}
"""Named after the noise that they were trained for."""
PEERS = (*FILTERS, *_NETWORKS)


class FilterNetwork(nn.Module):
    """A filter in a network's place: ``(B, C, H, W) -> (B, C, H, W)``, on the CPU, without parameters to learn."""

    def __init__(self, filter: Filter, noise: float) -> None:
        super().__init__()
        self.filter, self.noise = filter, noise
        unit = 1.0 if filter.absolute else noise
        self.range = unit * filter.low, unit * filter.high
        self.strength: Tensor
        self.register_buffer("strength", torch.tensor(float(np.sqrt(self.range[0] * self.range[1]))))

    def forward(self, images: Tensor) -> Tensor:
        return self.filtered(images, self.strength.item())

    def filtered(self, images: Tensor, strength: float) -> Tensor:
        """With a strength of the caller's choice."""
        arrays = images.detach().float().cpu().permute(0, 2, 3, 1).double().numpy()
        found = np.stack([self.filter.denoise(array, strength, self.noise) for array in arrays])
        return torch.from_numpy(found).permute(0, 3, 1, 2).to(images)


def build_peer(name: str, data: DataConfig) -> nn.Module:
    """By name, for the noise of a recipe's data.

    Raises:
        RecipeError: for an unknown name; DataError if what it needs is missing.
    """
    if name in FILTERS:
        return FilterNetwork(FILTERS[name], cast(float, data.noise))  # recipes of denoising give it
    if name in _NETWORKS:
        return load_dncnn(_NETWORKS[name], config=data)
    raise RecipeError(f"unknown peer {name!r}{suggest(name, PEERS)}; known: {', '.join(PEERS)}")


def tune(peer: nn.Module, pairs: ImageSet) -> None:
    """Set a filter's strength to what is best, in mean squared error, on the first training pairs (noisy, clean); by
    bounded search over its logarithm. A network stays as it is."""
    if not isinstance(peer, FilterNetwork) or peer.range[0] == peer.range[1]:
        return
    noisy, clean = (
        torch.stack(part) for part in zip(*(pairs[i] for i in range(min(len(pairs), _TUNED_ON))), strict=True)
    )

    def error(logarithm: float) -> float:
        return (peer.filtered(noisy, float(np.exp(logarithm))) - clean).square().mean().item()

    best = minimize_scalar(error, bounds=np.log(peer.range), method="bounded", options={"xatol": 0.02})
    peer.strength.fill_(float(np.exp(best.x)))
