"""From a picture of any size to the input of a network."""

from __future__ import annotations

import numpy as np
import torch
import torchvision.transforms.v2.functional as F
from PIL import Image
from torch import Tensor

from metric_zoo.benchmarks.data.splits import augmentation
from metric_zoo.benchmarks.recipe_sections import DataConfig
from metric_zoo.errors import DataError
from metric_zoo.images import levels, of_8_bits


class Preparation:
    """Resize to ``image_size`` pixels a side, augment, scale to [-1, 1].

    What a picture shows is what `metric_zoo.images.levels` says; 16 bits are brought to 8.
    Plain functions on a plain tensor: a chain of torchvision's transforms takes three times as long on small images.

    Args:
        config: of the data; ``image_size`` must be set, pictures may differ in theirs.
        augmented: whether to do what ``config.augment`` says.

    Raises:
        DataError: without an ``image_size``.
    """

    def __init__(self, config: DataConfig, augmented: bool) -> None:
        if config.image_size is None:
            raise DataError(f"data set {config.name!r} needs data.image_size: its images may differ in size")
        self._size, self._channels = config.image_size, config.channels or 3
        self._augment = augmentation(config, config.image_size) if augmented else None
        self._resized = not (augmented and config.augment == "resized-crop-flip")  # that crops the picture as it is

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of what comes out: channels, height, width."""
        return self._channels, self._size, self._size

    def __call__(self, picture: Image.Image) -> Tensor:
        """``(C, H, W)`` float32.

        Raises:
            ValueError, OSError, SyntaxError: as `metric_zoo.images.levels`.
        """
        shown = Image.fromarray(of_8_bits(levels(picture)))
        pixels = np.array(shown.convert("L" if self._channels == 1 else "RGB"))
        image = torch.from_numpy(pixels.reshape(*pixels.shape[:2], -1)).permute(2, 0, 1)
        if self._resized and image.shape[-2:] != (self._size, self._size):
            image = F.resize(image, [self._size, self._size], antialias=True)
        if self._augment is not None:
            image = self._augment(image)
        return image.to(torch.float32, memory_format=torch.contiguous_format).div_(127.5).sub_(1)
