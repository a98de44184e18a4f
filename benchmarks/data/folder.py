"""Any folder of images: ``train/<class>/*`` and ``test/<class>/*`` (or ``val/``)."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import Image
from torchvision.datasets import ImageFolder

from metric_zoo.benchmarks.data.digests import digest_of
from metric_zoo.benchmarks.data.listing import pictures_below, subfolders
from metric_zoo.benchmarks.data.pictures import Preparation
from metric_zoo.benchmarks.data.splits import Splits, data_root
from metric_zoo.benchmarks.recipe_sections import DataConfig
from metric_zoo.benchmarks.schema import DatasetInfo
from metric_zoo.errors import DataError
from metric_zoo.images import read_8_bits
from metric_zoo.text import utf8


def load_folder(config: DataConfig) -> Splits:
    """Images by class folder, resized to ``image_size`` pixels a side and scaled to [-1, 1].

    Raises:
        DataError: if the folders are missing, hold no images, or disagree on the classes.
    """
    clean = Preparation(config, augmented=False)
    root = data_root(config)
    train, test = _subfolder(root, "train"), _subfolder(root, "test", "val")
    unreadable = {*_unreadable(train), *_unreadable(test)} if config.skip_unreadable else set()
    augmented = _Pictures(train, Preparation(config, augmented=True), unreadable)
    trained, tested = (_Pictures(part, clean, unreadable) for part in (train, test))
    if trained.classes != tested.classes:
        different = sorted(set(trained.classes) ^ set(tested.classes))
        raise DataError(f"{train} and {test} have different classes, e.g. {different[0]!r}")
    if len(trained.classes) < 2:
        raise DataError(f"{train} has one class, {trained.classes[0]!r}: there is nothing to tell apart")
    info = DatasetInfo(
        name=config.label or f"folder:{utf8(root.name)}",
        train_size=len(trained),
        test_size=len(tested),
        classes=len(trained.classes),
        image_shape=clean.shape,
        fingerprint=_fingerprint(root, [augmented, trained, tested]),
        unreadable=len(unreadable),
    )
    return Splits(augmented, trained, tested, info)


def _subfolder(root: Path, *names: str) -> Path:
    for name in names:
        if (root / name).is_dir():
            return root / name
    wanted = " or ".join(f"{name}/<class>/<image>" for name in names)
    raise DataError(f"{root} has no folder {wanted}: name another by data.root or METRIC_ZOO_DATA")


class _Pictures(ImageFolder):
    """torchvision's folder of classes, whose members are the visible pictures.

    Args:
        folder: of class folders.
        transform: of every picture.
        left_out: paths that do not count.
    """

    def __init__(self, folder: Path, transform: Preparation, left_out: Collection[str]) -> None:
        self._left_out = left_out
        super().__init__(str(folder), transform, loader=_load)

    def find_classes(self, directory: str) -> tuple[list[str], dict[str, int]]:
        classes = subfolders(Path(directory))
        if not classes:
            raise DataError(f"{directory} is not a folder of image classes: expected <class>/<image> in it")
        return classes, {name: number for number, name in enumerate(classes)}

    def make_dataset(self, directory: str, class_to_idx: dict[str, int], **_: object) -> list[tuple[str, int]]:
        samples = []
        for name, number in class_to_idx.items():
            kept = [path for path in pictures_below(Path(directory, name)) if path not in self._left_out]
            if not kept:
                raise DataError(f"{directory} is not a folder of image classes: {name} holds no image")
            samples += [(path, number) for path in kept]
        return samples


def _load(path: str) -> Image.Image:
    """A whole picture of 8 bits.

    Raises:
        DataError: naming the file.
    """
    try:
        return read_8_bits(Path(path))
    except DataError as error:
        raise DataError(f"image {error}: mend it, or leave it out by data.skip_unreadable: true") from None


def _unreadable(folder: Path) -> list[str]:
    """Every image is read once, on all cores."""
    paths = pictures_below(folder)
    with ThreadPoolExecutor() as pool:
        return [path for path, fine in zip(paths, pool.map(_is_readable, paths), strict=True) if not fine]


def _is_readable(path: str) -> bool:
    try:
        _load(path)
    except DataError:
        return False
    return True


def _fingerprint(root: Path, splits: Sequence[ImageFolder]) -> str:
    samples = [sample for split in (splits[0], splits[2]) for sample in sorted(split.samples)]
    return digest_of(root, [path for path, _ in samples], [label for _, label in samples])
