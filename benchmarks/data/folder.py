"""Any folder of images: ``train/<class>/*`` and ``test/<class>/*`` (or ``val/``)."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from metric_zoo.benchmarks.data.splits import Splits, augmentation, data_root
from metric_zoo.benchmarks.recipe import DataConfig
from metric_zoo.benchmarks.record import DatasetInfo
from metric_zoo.errors import DataError


def load_folder(config: DataConfig) -> Splits:
    """Images by class folder, resized to ``image_size`` pixels a side and scaled to [-1, 1].

    Raises:
        DataError: if the folders are missing, hold no images, or disagree on the classes.
    """
    if config.image_size is None:
        raise DataError("data set 'folder' needs data.image_size: its images may differ in size")
    root = data_root(config)
    train, test = _subfolder(root, "train"), _subfolder(root, "test", "val")
    channels = config.channels or 3
    splits = [
        _read(train, _transform(config, channels, augmented=True)),
        _read(train, _transform(config, channels, augmented=False)),
        _read(test, _transform(config, channels, augmented=False)),
    ]
    if splits[0].classes != splits[2].classes:
        different = sorted(set(splits[0].classes) ^ set(splits[2].classes))
        raise DataError(f"{train} and {test} have different classes, e.g. {different[0]!r}")
    info = DatasetInfo(
        name=f"folder:{root.name}",
        train_size=len(splits[0]),
        test_size=len(splits[2]),
        classes=len(splits[0].classes),
        image_shape=(channels, config.image_size, config.image_size),
        fingerprint=_fingerprint(root, splits),
    )
    return Splits(*splits, info)


def _subfolder(root: Path, *names: str) -> Path:
    for name in names:
        if (root / name).is_dir():
            return root / name
    wanted = " or ".join(f"{name}/<class>/<image>" for name in names)
    raise DataError(f"{root} has no folder {wanted}: name another by data.root or METRIC_ZOO_DATA")


def _read(folder: Path, transform: v2.Transform) -> ImageFolder:
    try:
        return ImageFolder(str(folder), transform)
    except (FileNotFoundError, OSError) as error:
        raise DataError(f"{folder} is not a folder of image classes: {error}") from None


def _transform(config: DataConfig, channels: int, augmented: bool) -> v2.Transform:
    steps: list[v2.Transform] = [v2.ToImage(), v2.Resize((config.image_size, config.image_size), antialias=True)]
    steps.append(v2.Grayscale(1) if channels == 1 else v2.RGB())
    if augmented:
        steps.append(augmentation(config, config.image_size))
    half = [0.5] * channels
    return v2.Compose([*steps, v2.ToDtype(torch.float32, scale=True), v2.Normalize(half, half), v2.ToPureTensor()])


def _fingerprint(root: Path, splits: list[ImageFolder]) -> str:
    """Over names and sizes in bytes, not pixels: reading every image of a large folder would cost minutes."""
    digest = hashlib.sha256()
    for split in (splits[0], splits[2]):
        for path, label in sorted(split.samples):
            file = Path(path)
            digest.update(f"{file.relative_to(root).as_posix()}\0{file.stat().st_size}\0{label}\n".encode())
    return digest.hexdigest()
