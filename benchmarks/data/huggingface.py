"""A Hugging Face data set on disk."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

from metric_zoo.benchmarks.data.pictures import Preparation
from metric_zoo.benchmarks.data.splits import Splits, data_root
from metric_zoo.benchmarks.recipe import DataConfig
from metric_zoo.benchmarks.record import DatasetInfo
from metric_zoo.errors import DataError


def load_huggingface(config: DataConfig) -> Splits:
    """What ``DatasetDict.save_to_disk`` wrote, or a folder of parquet files as the hub keeps them.

    It has a split ``train`` and one of ``test``, ``validation`` or ``val``, with one column of images and one of class
    labels.

    Raises:
        DataError: if it is not there, ``datasets`` is not installed, or splits or columns are missing.
    """
    root = data_root(config)
    tables = _load(root)
    name = next((name for name in ("test", "validation", "val") if name in tables), None)
    if "train" not in tables or name is None:
        raise DataError(f"{root} has the splits {', '.join(tables)}; expected train, and test or validation")
    image, label = _columns(root, tables["train"].features)
    clean, train, test = Preparation(config, augmented=False), tables["train"], tables[name]
    if train.features != test.features:
        raise DataError(f"{root}: the splits train and {name} have different columns or classes")
    info = DatasetInfo(
        name=config.label or f"huggingface:{root.name}",
        train_size=len(train),
        test_size=len(test),
        classes=train.features[label].num_classes,
        image_shape=clean.shape,
        fingerprint=_fingerprint(root, [np.asarray(table[label][:]) for table in (train, test)]),
    )
    if info.classes < 2:
        raise DataError(f"{root} has one class: there is nothing to tell apart")

    def view(split: str, prepare: Preparation) -> _Pictures:
        return _Pictures(tables[split], image, label, prepare, f"{root}, split {split}")

    return Splits(view("train", Preparation(config, augmented=True)), view("train", clean), view(name, clean), info)


class _Pictures(Dataset):
    """Rows of a table as ``(image (C, H, W), label)``; ``place`` is for errors."""

    def __init__(self, table: Any, image: str, label: str, prepare: Preparation, place: str) -> None:
        self._table, self._image, self._label, self._prepare, self._place = table, image, label, prepare, place

    def __len__(self) -> int:
        return len(self._table)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        try:
            row = self._table[index]
            return self._prepare(row[self._image]), row[self._label]
        except (OSError, ValueError, SyntaxError) as error:
            raise DataError(f"{self._place}: image {index} cannot be read: {error}") from None


def _load(root: Path) -> dict[str, Any]:
    try:
        import datasets
    except ImportError:
        raise DataError("datasets is not installed: pip install 'metric-zoo[huggingface]'") from None
    if not root.is_dir():
        raise DataError(f"{root} is not a folder: name the data set's by data.root or METRIC_ZOO_DATA")
    try:
        if (root / "dataset_dict.json").exists():
            return datasets.load_from_disk(str(root))
        return datasets.load_dataset("parquet", data_files=_parquet(root))
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise DataError(f"{root} cannot be read as a Hugging Face data set: {str(error).splitlines()[0]}") from None


def _parquet(root: Path) -> dict[str, list[str]]:
    """Files by split, which the hub writes at the beginning of their names: ``train-00000-of-00001.parquet``."""
    files: dict[str, list[str]] = {}
    for path in sorted(root.rglob("*.parquet")):
        files.setdefault(path.name.split("-")[0].removesuffix(".parquet"), []).append(str(path))
    if not files:
        raise DataError(f"{root} holds no Hugging Face data set: neither dataset_dict.json nor *.parquet")
    return files


def _columns(root: Path, features: dict[str, Any]) -> tuple[str, str]:
    """The names of the column of images and of the one of labels."""
    found = []
    for kind in ("Image", "ClassLabel"):
        names = [name for name, feature in features.items() if type(feature).__name__ == kind]
        if len(names) != 1:
            raise DataError(f"{root} has {len(names)} columns of type {kind}, expected one; all: {', '.join(features)}")
        found += names
    return found[0], found[1]


def _fingerprint(root: Path, labels: list[np.ndarray]) -> str:
    """Over labels, and names and sizes of the files, not pixels: reading every image would cost minutes."""
    digest = hashlib.sha256()
    for path in sorted([*root.rglob("*.arrow"), *root.rglob("*.parquet")]):
        digest.update(f"{path.relative_to(root).as_posix()}\0{path.stat().st_size}\n".encode())
    for column in labels:
        digest.update(column.astype(np.int64).tobytes())
    return digest.hexdigest()
