"""Any folder of images: ``train/<class>/*`` and ``test/<class>/*`` (or ``val/``)."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import Image
from torchvision.datasets import ImageFolder
from torchvision.datasets.folder import IMG_EXTENSIONS

from metric_zoo.benchmarks.data.pictures import Preparation, of_8_bits
from metric_zoo.benchmarks.data.splits import Splits, data_root
from metric_zoo.benchmarks.recipe import DataConfig
from metric_zoo.benchmarks.record import DatasetInfo
from metric_zoo.errors import DataError


def load_folder(config: DataConfig) -> Splits:
    """Images by class folder, resized to ``image_size`` pixels a side and scaled to [-1, 1].

    Raises:
        DataError: if the folders are missing, hold no images, or disagree on the classes.
    """
    clean = Preparation(config, augmented=False)
    root = data_root(config)
    train, test = _subfolder(root, "train"), _subfolder(root, "test", "val")
    unreadable = [] if not config.skip_unreadable else [*_unreadable(train), *_unreadable(test)]
    splits = [
        _read(train, Preparation(config, augmented=True), unreadable),
        _read(train, clean, unreadable),
        _read(test, clean, unreadable),
    ]
    if splits[0].classes != splits[2].classes:
        different = sorted(set(splits[0].classes) ^ set(splits[2].classes))
        raise DataError(f"{train} and {test} have different classes, e.g. {different[0]!r}")
    if len(splits[0].classes) < 2:
        raise DataError(f"{train} has one class, {splits[0].classes[0]!r}: there is nothing to tell apart")
    info = DatasetInfo(
        name=config.label or f"folder:{root.name}",
        train_size=len(splits[0]),
        test_size=len(splits[2]),
        classes=len(splits[0].classes),
        image_shape=clean.shape,
        fingerprint=_fingerprint(root, splits),
        unreadable=len(unreadable),
    )
    return Splits(*splits, info)


def _subfolder(root: Path, *names: str) -> Path:
    for name in names:
        if (root / name).is_dir():
            return root / name
    wanted = " or ".join(f"{name}/<class>/<image>" for name in names)
    raise DataError(f"{root} has no folder {wanted}: name another by data.root or METRIC_ZOO_DATA")


def _read(folder: Path, transform: Preparation, unreadable: Collection[str]) -> ImageFolder:
    left_out = {"is_valid_file": lambda path: _is_image(path) and path not in unreadable} if unreadable else {}
    try:
        return ImageFolder(str(folder), transform, loader=_load, **left_out)
    except (FileNotFoundError, OSError) as error:
        raise DataError(f"{folder} is not a folder of image classes: {error}") from None


def _is_image(path: str) -> bool:
    return path.lower().endswith(IMG_EXTENSIONS)


def _load(path: str) -> Image.Image:
    """A whole picture, of any mode that `Preparation` reads.

    Raises:
        DataError: naming the file.
    """
    try:
        with Image.open(path) as image:
            return of_8_bits(image).copy()
    except (OSError, EOFError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(
            f"image {path} cannot be read ({error}): mend it, or leave it out by data.skip_unreadable: true"
        ) from None


def _unreadable(folder: Path) -> list[str]:
    """Every image is read once, on all cores."""
    paths = [str(path) for path in sorted(folder.rglob("*")) if path.is_file() and _is_image(path.name)]
    with ThreadPoolExecutor() as pool:
        return [path for path, fine in zip(paths, pool.map(_is_readable, paths), strict=True) if not fine]


def _is_readable(path: str) -> bool:
    try:
        _load(path)
    except DataError:
        return False
    return True


def _fingerprint(root: Path, splits: list[ImageFolder]) -> str:
    """Over names and sizes in bytes, not pixels: reading every image of a large folder would cost minutes."""
    digest = hashlib.sha256()
    for split in (splits[0], splits[2]):
        for path, label in sorted(split.samples):
            file = Path(path)
            digest.update(f"{file.relative_to(root).as_posix()}\0{file.stat().st_size}\0{label}\n".encode())
    return digest.hexdigest()
