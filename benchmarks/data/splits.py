"""What every data set yields, and where data lie."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import platformdirs
import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms import v2

from metric_zoo.benchmarks.data.seeds import mixed_seed
from metric_zoo.benchmarks.recipe_sections import DataConfig
from metric_zoo.benchmarks.schema import DatasetInfo


class ImageSet(Protocol):
    """What is trained on or scored: a `torch.utils.data.Dataset` that knows its size. Items are as of `Splits`."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


@dataclass(frozen=True)
class Splits:
    """Views of a data set; items are ``(image (C, H, W) float32, label)``, or ``(noisy, clean)`` for denoising.

    Attributes:
        train: training images, augmented where the recipe says so.
        train_clean: the same images without augmentation, for the training accuracy.
        test: test images.
        info: for the record.
        validation: what neither trains nor scores; None where a part of the training images must be held out for it.
    """

    train: ImageSet
    train_clean: ImageSet
    test: ImageSet
    info: DatasetInfo
    validation: ImageSet | None = None


def data_root(config: DataConfig) -> Path:
    """The recipe's folder, else ``$METRIC_ZOO_DATA``, else the platform's cache folder for this package."""
    chosen = config.root or os.environ.get("METRIC_ZOO_DATA") or platformdirs.user_cache_dir("metric-zoo")
    return Path(chosen).expanduser()


def augmentation(config: DataConfig, size: int) -> v2.Transform:
    """The random part of the training transform, for square images of ``size`` pixels."""
    if config.augment == "none":
        return v2.Identity()
    if config.augment == "resized-crop-flip":
        return v2.Compose([v2.RandomResizedCrop(size, antialias=True), v2.RandomHorizontalFlip()])
    return v2.Compose([v2.RandomCrop(size, padding=max(size // 8, 1)), v2.RandomHorizontalFlip()])


class Augmented(Dataset):
    """A data set whose random transforms depend on seed, epoch and image alone.

    So a run that was interrupted, or is shared out otherwise, sees what an undisturbed one sees; and the network's own
    random numbers (dropout) are left where they are.

    Args:
        dataset: with random transforms, which draw from torch's CPU generator.
        seed: of the run.
    """

    def __init__(self, dataset: ImageSet, seed: int) -> None:
        self.dataset, self.seed = dataset, seed
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()  # workers that live on see it change

    def set_epoch(self, epoch: int) -> None:
        self._epoch.fill_(epoch)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        state = torch.random.get_rng_state()
        torch.random.default_generator.manual_seed(mixed_seed(self.seed, int(self._epoch), index))
        try:
            return self.dataset[index]
        finally:
            torch.random.set_rng_state(state)


class TensorImages(Dataset):
    """Images held in memory.

    Args:
        images: ``(N, C, H, W)`` uint8.
        labels: ``(N,)`` int64.
        mean, std: ``(C, 1, 1)`` in [0, 1].
        augment: applied to the uint8 image.
    """

    def __init__(self, images: Tensor, labels: Tensor, mean: Tensor, std: Tensor, augment: v2.Transform) -> None:
        self.images, self.labels, self.mean, self.std, self.augment = images, labels, mean, std, augment

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image = self.augment(self.images[index]).to(torch.float32).div_(255)
        return image.sub_(self.mean).div_(self.std), self.labels[index]
