"""Pictures and the same with noise: pixels in [0, 1], the noise Gaussian, clipped to that range afterwards."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Dataset

from metric_zoo.benchmarks.data.digests import digest_of
from metric_zoo.benchmarks.data.listing import pictures_below
from metric_zoo.benchmarks.data.seeds import mixed_seed
from metric_zoo.benchmarks.data.splits import ImageSet, Splits, data_root
from metric_zoo.benchmarks.recipe_sections import DataConfig
from metric_zoo.benchmarks.schema import DatasetInfo
from metric_zoo.errors import DataError, suggest
from metric_zoo.images import centre_crop, in_channels, read_image
from metric_zoo.reading import read_text
from metric_zoo.text import told, utf8

EMBEDDED = {
    "train": ("brick", "coffee", "grass", "gravel", "hubble_deep_field", "immunohistochemistry", "moon", "rocket"),
    "test": ("astronaut", "camera", "chelsea", "coins"),
}
"""Of scikit-image's pictures."""
NAMES = ("scikit-image", "bsds300", "bsds500", "voc", "folder")
STEPS = 10
"""Of an epoch on a single image."""
LEAST = 11
"""Pixels a side."""
_TRAIN, _TEST, _VALIDATION = 0, 1, 2
_SIZE = 256
_LONGEST = 2**24
"""Bytes of a list of names."""


class Noisy(Dataset):
    """Items are ``(noisy (C, H, W), clean (C, H, W))``, float32 in [0, 1].

    Args:
        pictures: the clean ones.
        noise: standard deviation.
        seed: which realisation; None draws a new one at every look, from torch's CPU generator.
    """

    def __init__(self, pictures: Sequence[Tensor], noise: float, seed: tuple[int, ...] | None) -> None:
        self._pictures, self._noise, self._seed = pictures, noise, seed

    def __len__(self) -> int:
        return len(self._pictures)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        clean, generator = self._pictures[index], None
        if self._seed is not None:
            generator = torch.Generator().manual_seed(mixed_seed(*self._seed, index))
        return (clean + self._noise * torch.randn(clean.shape, generator=generator)).clamp_(0, 1), clean


class Repeated(Dataset):
    """A data set of one item, as if it had several."""

    def __init__(self, dataset: ImageSet, times: int) -> None:
        self._dataset, self._times = dataset, times

    def __len__(self) -> int:
        return self._times

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self._dataset[0]


class Files(Sequence):
    """Pictures that are read when they are asked for.

    Args:
        paths: of the files.
        config: ``image_size`` (None: 256) and ``channels`` of what they become.
    """

    def __init__(self, paths: list[Path], config: DataConfig) -> None:
        self.paths, self._config = paths, config

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        return middle(_coloured(read_image(self.paths[index]), self._config), self._config.image_size or _SIZE)


def load_noisy(config: DataConfig) -> Splits:
    """A data set of pictures: new noise at every look for training, always the same for scores.

    Raises:
        DataError: for an unknown name, folders without pictures, or an augmentation.
    """
    _check(config)
    if config.name == "scikit-image":
        train, test = ([tile for name in EMBEDDED[split] for tile in _tiles(name, config)] for split in EMBEDDED)
        fingerprint = _of_pixels([*train, *test])
    else:
        root = data_root(config)
        paths = _paths(config.name, root)
        train, test = (Files(part, config) for part in paths)
        fingerprint = digest_of(root, [str(path) for part in paths for path in part])
    noise = _noise(config)
    train_clean, scored = Noisy(train, noise, (_TRAIN,)), Noisy(test, noise, (_TEST,))
    info = _info(config, len(train), len(test), train[0], fingerprint)
    return Splits(Noisy(train, noise, None), train_clean, scored, info)


def load_noisy_image(config: DataConfig, seed: int) -> Splits:
    """One picture with one realisation of the noise for training and others for scores and for what is held out; all
    three depend on the run's seed. An epoch has `STEPS` steps.

    Raises:
        DataError: for an unknown name, or a picture that cannot be read.
    """
    _check(config)
    if config.name == "scikit-image":
        picture = embedded(config.image or "camera")
    elif config.name == "folder" and config.image is not None:
        picture = read_image(data_root(config) / config.image)
    else:
        raise DataError(f"a single image is one of 'scikit-image' or a data.image in a 'folder', not {config.name!r}")
    clean = [middle(_coloured(picture, config), config.image_size or _SIZE)]
    train, test, validation = (Noisy(clean, _noise(config), (seed, part)) for part in (_TRAIN, _TEST, _VALIDATION))
    info = _info(config, 1, 1, clean[0], _of_pixels(clean))
    return Splits(Repeated(train, STEPS), train, test, info, validation)


def _check(config: DataConfig) -> None:
    if config.name not in NAMES:
        known = ", ".join(NAMES)
        raise DataError(f"unknown pictures {config.name!r} for denoising{suggest(config.name, NAMES)}; known: {known}")
    if (config.image_size or _SIZE) < LEAST:
        raise DataError(f"data.image_size={config.image_size}: SSIM needs at least {LEAST} pixels a side")
    if config.skip_unreadable:
        raise DataError("data.skip_unreadable: pictures for denoising are read when they are needed; mend or move them")
    if config.augment != "none":
        raise DataError(f"data.augment={config.augment!r}: pictures for denoising are not augmented")


def _noise(config: DataConfig) -> float:
    assert config.noise is not None, "recipes of denoising give it"
    return config.noise


def _info(config: DataConfig, train: int, test: int, picture: Tensor, fingerprint: str) -> DatasetInfo:
    name = config.label or f"folder:{utf8(data_root(config).name)}" if config.name == "folder" else config.name
    channels, height, width = picture.shape
    shape = (channels, height, width)
    return DatasetInfo(
        name=name, train_size=train, test_size=test, classes=0, image_shape=shape, fingerprint=fingerprint
    )


def middle(picture: Tensor, size: int) -> Tensor:
    """``(C, size, size)``: the middle of ``(C, H, W)``; a smaller picture is first enlarged to fill it."""
    least = min(picture.shape[-2:])
    if least < size:
        scale = size / least
        shape = [max(size, round(side * scale)) for side in picture.shape[-2:]]
        picture = F.interpolate(picture[None], shape, mode="bilinear", align_corners=False)[0]
    return centre_crop(picture, size).contiguous()


def _tiles(name: str, config: DataConfig) -> Iterable[Tensor]:
    """As many squares of an embedded picture as there is room for, around its middle."""
    picture, size = _coloured(embedded(name), config), config.image_size or _SIZE
    rows, columns = (max(1, side // size) for side in picture.shape[-2:])
    top, left = ((side - count * size) // 2 for side, count in zip(picture.shape[-2:], (rows, columns), strict=True))
    if min(top, left) < 0:
        return [middle(picture, size)]
    grid = picture[:, top : top + rows * size, left : left + columns * size]
    return grid.unfold(1, size, size).unfold(2, size, size).permute(1, 2, 0, 3, 4).flatten(0, 1).contiguous()


def embedded(name: str) -> Tensor:
    """One of scikit-image's pictures, ``(C, H, W)`` in [0, 1].

    Raises:
        DataError: if scikit-image is missing, or has no such picture.
    """
    try:
        from skimage import data
    except ImportError:
        raise DataError("the pictures of 'scikit-image' need it: pip install 'metric-zoo[denoising]'") from None
    known = [picture for names in EMBEDDED.values() for picture in names]
    if name not in known:
        raise DataError(f"unknown picture {name!r}{suggest(name, known)}; known: {', '.join(known)}")
    pixels = torch.from_numpy(getattr(data, name)()).float() / 255
    return pixels.reshape(*pixels.shape[:2], -1).permute(2, 0, 1)


def _coloured(picture: Tensor, config: DataConfig) -> Tensor:
    return in_channels(picture.reshape(picture.shape[-3:]), config.channels or 1)


def _paths(name: str, root: Path) -> tuple[list[Path], list[Path]]:
    """Files to train on and to test on; the Berkeley sets as BSDS500's folders ``train``, ``val`` and ``test`` have
    them: BSDS300 is the first two."""
    if name == "voc":
        return _listed(root, "train"), _listed(root, "val")
    if name == "bsds500":
        return [*_pictures(root, "train"), *_pictures(root, "val")], _pictures(root, "test")
    if name == "bsds300":
        return _pictures(root, "train"), _pictures(root, "val")
    return _pictures(root, "train"), _pictures(root, "test", "val")


def _pictures(root: Path, *names: str) -> list[Path]:
    """All in the first of these folders that is there, and below."""
    for name in names:
        found = sorted(map(Path, pictures_below(root / name))) if (root / name).is_dir() else []
        if found:
            return found
    raise DataError(f"{root} has no pictures in {' or '.join(names)}/: name another by data.root or METRIC_ZOO_DATA")


def _listed(root: Path, split: str) -> list[Path]:
    """PascalVOC's segmentation split; ``root`` holds ``JPEGImages`` and ``ImageSets``."""
    listing = root / "ImageSets" / "Segmentation" / f"{split}.txt"
    try:
        names = read_text(listing, _LONGEST).split()
    except (OSError, ValueError) as error:
        raise DataError(
            f"{listing} cannot be read ({told(error)}): name PascalVOC's folder by data.root or METRIC_ZOO_DATA"
        ) from None
    if not names:
        raise DataError(f"{listing} is empty")
    return [root / "JPEGImages" / f"{name}.jpg" for name in names]


def _of_pixels(pictures: Iterable[Tensor]) -> str:
    digest = hashlib.sha256()
    for picture in pictures:
        digest.update(repr(tuple(picture.shape)).encode())
        digest.update(picture.contiguous().numpy().tobytes())
    return digest.hexdigest()
