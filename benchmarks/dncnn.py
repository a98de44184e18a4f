"""DnCNN, with weights that others trained (Zhang et al., *Beyond a Gaussian Denoiser*, TIP 2017,
https://arxiv.org/abs/1608.03981)."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from metric_zoo.benchmarks.data.splits import data_root
from metric_zoo.benchmarks.recipe_sections import DataConfig
from metric_zoo.errors import DataError

LEVELS = {"L": 0.06, "M": 0.10, "H": 0.20}
"""Standard deviations of the noise that the weights were trained for, by their files' last letter."""


class DnCNN(nn.Module):
    """Convolutions of 3x3 that estimate the noise in a grey image, and subtract it. Borders are periodic, as those were
    that the weights were trained with.

    Args:
        depth: number of convolutions; all but the first and the last are followed by batch normalisation.
        width: channels between them.
    """

    def __init__(self, depth: int = 17, width: int = 64) -> None:
        super().__init__()
        conv = {"kernel_size": 3, "padding": 1, "padding_mode": "circular", "bias": False}
        layers: list[nn.Module] = [nn.Conv2d(1, width, **conv), nn.ReLU()]
        for _ in range(depth - 2):
            layers += [nn.Conv2d(width, width, **conv), nn.BatchNorm2d(width), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Conv2d(width, 1, **conv))

    def forward(self, image: Tensor) -> Tensor:
        """``(B, C, H, W) -> (B, C, H, W)`` in [0, 1]; every channel by itself."""
        grey = image.flatten(0, 1)[:, None]
        return (grey - self.layers(grey)).view_as(image)


def load_dncnn(level: str, depth: int = 17, config: DataConfig | None = None) -> DnCNN:
    """A trained one: the files ``dncnn<depth><level>.mpk`` of the package scico, which need not be importable, or of
    the data folder.

    Args:
        level: of `LEVELS`.
        depth: 6 or 17.
        config: whose ``root`` is the data folder.

    Raises:
        DataError: saying where the file may be had.
    """
    tree = _read(_find(f"dncnn{depth}{level}.mpk", config or DataConfig()))
    model = DnCNN(depth)
    try:
        for module, tensors in zip(_with_state(model), _parts(tree, depth), strict=True):
            own = dict(module.named_parameters()) | dict(module.named_buffers())
            with torch.no_grad():
                for name, array in tensors.items():
                    own[name].copy_(torch.from_numpy(array.copy()))
    except (KeyError, AttributeError, TypeError, ValueError, RuntimeError) as error:
        raise DataError(f"dncnn{depth}{level}.mpk does not hold a DnCNN of {depth} layers: {error!r}") from None
    return model.eval()


def _with_state(model: DnCNN) -> list[nn.Module]:
    return [layer for layer in model.layers if not isinstance(layer, nn.ReLU)]


def _parts(tree: dict[str, Any], depth: int) -> Iterator[dict[str, np.ndarray]]:
    """Tensors of every layer by torch's names, in order; flax stores kernels as (height, width, in, out)."""
    weights, statistics = tree["params"], tree["batch_stats"]
    yield {"weight": weights["conv_start"]["kernel"].transpose(3, 2, 0, 1)}
    for number in range(depth - 2):
        block, kept = weights[f"ConvBNBlock_{number}"], statistics[f"ConvBNBlock_{number}"]["BatchNorm_0"]
        yield {"weight": block["Conv_0"]["kernel"].transpose(3, 2, 0, 1)}
        scale = block["BatchNorm_0"]
        yield {
            "weight": scale["scale"],
            "bias": scale["bias"],
            "running_mean": kept["mean"],
            "running_var": kept["var"],
        }
    yield {"weight": weights["conv_end"]["kernel"].transpose(3, 2, 0, 1)}


def _find(name: str, config: DataConfig) -> Path:
    places = [data_root(config) / name]
    try:
        files = importlib.metadata.files("scico") or []
        places += [Path(file.locate()) for file in files if file.name == name]
    except importlib.metadata.PackageNotFoundError:
        pass
    for place in places:
        if place.is_file():
            return place
    raise DataError(
        f"the weights {name} are neither in {places[0].parent} nor in an installed scico: "
        "pip install --no-deps scico, or put the file there"
    )


def _read(path: Path) -> dict[str, Any]:
    """A tree of arrays as flax writes it (msgpack, arrays as extension 1)."""
    try:
        import msgpack
    except ImportError:
        raise DataError(f"{path.name} needs msgpack: pip install 'metric-zoo[denoising]'") from None

    def array(code: int, data: bytes) -> np.ndarray:
        if code != 1:
            raise ValueError(f"extension {code} is no array")
        shape, dtype, raw = msgpack.unpackb(data, raw=True)
        return np.frombuffer(raw, np.dtype(dtype.decode())).reshape(shape)

    try:
        return msgpack.unpackb(path.read_bytes(), ext_hook=array, strict_map_key=False)
    except (OSError, ValueError, TypeError, msgpack.UnpackException) as error:
        raise DataError(f"{path} does not hold flax's weights: {error}") from None
