"""Data sets small enough to hold in memory: scikit-learn's digits, MNIST, Fashion-MNIST, CIFAR-10 and CIFAR-100."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from metric_zoo.benchmarks.data.splits import Splits, TensorImages, augmentation, data_root
from metric_zoo.benchmarks.recipe_sections import DataConfig
from metric_zoo.benchmarks.schema import DatasetInfo
from metric_zoo.errors import DataError
from metric_zoo.text import told

Pixels = tuple[Tensor, Tensor]
"""Images ``(N, C, H, W)`` uint8 and labels ``(N,)`` int64."""


def load_digits(config: DataConfig) -> Splits:
    """The 1,797 handwritten digits of 8x8 pixels inside scikit-learn; a fixed, stratified fifth is the test split."""
    from sklearn.datasets import load_digits as load
    from sklearn.model_selection import train_test_split

    bunch: Any = load()
    images = np.rint(bunch.images * (255 / 16)).astype(np.uint8)[:, None]
    parts = train_test_split(images, bunch.target, test_size=0.2, stratify=bunch.target, random_state=0)
    train_x, test_x, train_y, test_y = (torch.from_numpy(np.ascontiguousarray(part)) for part in parts)
    return _splits(config, (train_x, train_y.long()), (test_x, test_y.long()))


def load_torchvision(config: DataConfig, class_name: str) -> Splits:
    """One of torchvision's data sets, from files that are already there.

    Raises:
        DataError: saying where the files belong.
    """
    from torchvision import datasets

    root = data_root(config)
    parts = []
    for train in (True, False):
        try:
            found = getattr(datasets, class_name)(str(root), train=train, download=False)
        except Exception as error:  # whatever its readers make of damaged files
            raise DataError(
                f"data set {config.name!r} is not in {root} ({told(error)}): put the files of "
                f"torchvision.datasets.{class_name} there, or name their folder by data.root in the recipe or by "
                "METRIC_ZOO_DATA"
            ) from None
        parts.append(_pixels(found))
    return _splits(config, *parts)


def _pixels(dataset: Any) -> Pixels:
    images = torch.as_tensor(np.asarray(dataset.data))
    images = images[:, None] if images.dim() == 3 else images.permute(0, 3, 1, 2)
    return images.contiguous(), torch.as_tensor(np.asarray(dataset.targets)).long()


def _splits(config: DataConfig, train: Pixels, test: Pixels) -> Splits:
    fingerprint = _fingerprint(*train, *test)
    (train_x, train_y), (test_x, test_y) = ((_resize(_recolour(x, config), config), y) for x, y in (train, test))
    pixels = train_x.to(torch.float32).div_(255)
    mean, std = pixels.mean((0, 2, 3)).view(-1, 1, 1), pixels.std((0, 2, 3)).clamp_min(1e-3).view(-1, 1, 1)
    plain = augmentation(config.model_copy(update={"augment": "none"}), train_x.shape[-1])
    channels, height, width = train_x.shape[1:]
    info = DatasetInfo(
        name=config.name,
        train_size=len(train_y),
        test_size=len(test_y),
        classes=int(train_y.max()) + 1,
        image_shape=(channels, height, width),
        fingerprint=fingerprint,
    )
    return Splits(
        TensorImages(train_x, train_y, mean, std, augmentation(config, train_x.shape[-1])),
        TensorImages(train_x, train_y, mean, std, plain),
        TensorImages(test_x, test_y, mean, std, plain),
        info,
    )


def _recolour(images: Tensor, config: DataConfig) -> Tensor:
    channels = images.shape[1]
    if config.channels in (None, channels):
        return images
    if config.channels == 3:
        return images.expand(-1, 3, -1, -1).contiguous()
    raise DataError(
        f"data set {config.name!r} has {channels} channels: data.channels={config.channels} would lose them"
    )


def _resize(images: Tensor, config: DataConfig) -> Tensor:
    size = config.image_size
    if size in (None, images.shape[-1]):
        return images
    resized = F.interpolate(images.float(), (size, size), mode="bilinear", antialias=True, align_corners=False)
    return resized.round_().clamp_(0, 255).to(torch.uint8)


def _fingerprint(*tensors: Tensor) -> str:
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(repr(tuple(tensor.shape)).encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()
