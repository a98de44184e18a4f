"""Changes of the test images that a robust network survives: noise, blur, rotation, scale."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms import v2

from metric_zoo.benchmarks.data.seeds import mixed_seed
from metric_zoo.benchmarks.data.splits import ImageSet

NOISE = 0.5
"""Standard deviation of the added noise, where that of the training pixels is 1 (image folders: half their range)."""
BLUR = 1.0
"""Standard deviation of the Gaussian, in pixels of a side of 32; larger images get more."""
DEGREES = 20.0
SCALE = 0.75


class Corrupted(Dataset):
    """A data set with every image changed. What happens to an image depends on nothing but the image and its number.

    Args:
        dataset: items are ``(image (C, H, W), label)``, normalised.
        name: one of `CORRUPTIONS`.
    """

    def __init__(self, dataset: ImageSet, name: str) -> None:
        self._dataset, self._change = dataset, CORRUPTIONS[name]

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image, label = self._dataset[index]
        return self._change(image, index), label


def _noise(image: Tensor, index: int) -> Tensor:
    generator = torch.Generator().manual_seed(mixed_seed(index))
    return image + NOISE * torch.randn(image.shape, generator=generator).to(image)


def _blur(image: Tensor, index: int) -> Tensor:
    sigma = BLUR * image.shape[-1] / 32
    size = 2 * min(max(1, round(3 * sigma)), (min(image.shape[-2:]) - 1) // 2) + 1
    return v2.functional.gaussian_blur(image, [size, size], [sigma, sigma])


def _rotate(image: Tensor, index: int) -> Tensor:
    return _affine(image, DEGREES, 1.0)


def _scale(image: Tensor, index: int) -> Tensor:
    return _affine(image, 0.0, SCALE)


def _affine(image: Tensor, degrees: float, scale: float) -> Tensor:
    """What comes in from outside is the image's smallest value."""
    fill = [float(image.amin())] * image.shape[0]
    mode = v2.InterpolationMode.BILINEAR
    return v2.functional.affine(image, degrees, [0, 0], scale, [0.0, 0.0], interpolation=mode, fill=fill)


CORRUPTIONS: dict[str, Callable[[Tensor, int], Tensor]] = {
    "noise": _noise,
    "blur": _blur,
    "rotation": _rotate,
    "scale": _scale,
}
