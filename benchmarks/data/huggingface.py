"""A Hugging Face data set on disk."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any, cast

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

from metric_zoo.benchmarks.data.digests import digest_of
from metric_zoo.benchmarks.data.listing import is_hidden
from metric_zoo.benchmarks.data.pictures import Preparation
from metric_zoo.benchmarks.data.splits import Splits, data_root
from metric_zoo.benchmarks.recipe_sections import DataConfig
from metric_zoo.benchmarks.schema import DatasetInfo
from metric_zoo.errors import DataError
from metric_zoo.text import told, utf8


def load_huggingface(config: DataConfig) -> Splits:
    """What ``DatasetDict.save_to_disk`` wrote, or a folder of parquet files as the hub keeps them.

    It has a split ``train`` and a labelled one of ``test``, ``validation`` or ``val``, with a column of images and one
    of class labels; where there are several, the recipe names one.

    Raises:
        DataError: if it is not there, ``datasets`` is not installed, or splits, columns or labels are missing.
    """
    root = data_root(config)
    if config.skip_unreadable:
        raise DataError("data.skip_unreadable is for the data set 'folder'")
    tables = _load(root)
    if "train" not in tables:
        raise DataError(f"{root} has the splits {', '.join(tables)}; expected train, and test or validation")
    image, label = _columns(root, tables["train"].features, config)
    labelled = [name for name in ("test", "validation", "val") if name in tables and _is_labelled(tables[name], label)]
    if not labelled or not _is_labelled(tables["train"], label):
        raise DataError(
            f"{root} has the splits {', '.join(tables)}; expected train, and test or validation, with a label from 0 "
            f"on in every row of the column {label!r}"
        )
    name = labelled[0]
    clean, train, test = Preparation(config, augmented=False), tables["train"], tables[name]
    if train.features != test.features:
        raise DataError(f"{root}: the splits train and {name} have different columns or classes")
    info = DatasetInfo(
        name=config.label or f"huggingface:{utf8(root.name)}",
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
        if not -len(self) <= index < len(self):
            raise IndexError(index)  # which ends a loop; a decoder's would, too
        try:
            row = self._table[index]
            if row[self._image] is None:
                raise ValueError("there is none")
            return self._prepare(row[self._image]), row[self._label]
        except Exception as error:  # whatever a decoder makes of damaged bytes
            raise DataError(f"{self._place}: image {index} cannot be read: {told(error)}") from None


def _load(root: Path) -> dict[str, Any]:
    try:
        import datasets
    except ImportError:
        raise DataError("datasets is not installed: pip install 'metric-zoo[huggingface]'") from None
    if not root.is_dir():
        raise DataError(f"{root} is not a folder: name the data set's by data.root or METRIC_ZOO_DATA")
    saved = os.path.exists(root / "dataset_dict.json")
    files = None if saved else _parquet(root)
    try:
        tables = datasets.load_from_disk(str(root)) if saved else datasets.load_dataset("parquet", data_files=files)
    except Exception as error:  # whatever its readers make of damaged files
        raise DataError(f"{root} cannot be read as a Hugging Face data set: {told(error)}") from None
    if not tables:
        raise DataError(f"{root} is a Hugging Face data set without splits; expected train, and test or validation")
    return cast("dict[str, Any]", tables)  # of splits, both ways


def _parquet(root: Path) -> dict[str, list[str]]:
    """Files by split, which the hub writes at the beginning of their names, ``train-00000-of-00001.parquet``, or as
    their folder's: ``train/0000.parquet``."""
    files: dict[str, list[Path]] = {}
    for path in _files(root, "*.parquet"):
        word = path.stem.split("-")[0]
        files.setdefault(path.parent.name if word.isdigit() else word, []).append(path)
    if not files:
        raise DataError(f"{root} holds no Hugging Face data set: neither dataset_dict.json nor *.parquet")
    for split, paths in files.items():
        folders = sorted({str(path.parent.relative_to(root)) for path in paths})
        if len(folders) > 1:
            raise DataError(f"{root} has a split {split!r} in {folders[0]} and in {folders[1]}: name one by data.root")
    return {split: list(map(str, paths)) for split, paths in files.items()}


def _columns(root: Path, features: dict[str, Any], config: DataConfig) -> tuple[str, str]:
    """The names of the column of images and of the one of labels."""
    found = []
    for kind, key, chosen in (
        ("Image", "image_column", config.image_column),
        ("ClassLabel", "label_column", config.label_column),
    ):
        names = [name for name, feature in features.items() if type(feature).__name__ == kind]
        fits = len(names) == 1 if chosen is None else chosen in names
        if not fits:
            wanted = f"not {chosen!r}" if chosen else f"name one by data.{key}" if names else "and needs one"
            columns = f"the columns {', '.join(names)} of type {kind}" if names else f"no column of type {kind}"
            raise DataError(f"{root} has {columns}, {wanted}; all: {', '.join(features)}")
        found.append(chosen or names[0])
    return found[0], found[1]


def _is_labelled(table: Any, label: str) -> bool:
    """The hub often keeps a test split whose labels are secret: -1."""
    labels = table[label][:]
    return len(labels) > 0 and all(value is not None and value >= 0 for value in labels)


def _files(root: Path, *patterns: str) -> list[Path]:
    """All below that are called so, but hidden ones and what the library has computed since."""
    found = {path for pattern in patterns for path in root.rglob(pattern)}
    seen = [path for path in found if not any(map(is_hidden, path.relative_to(root).parts))]
    return sorted(path for path in seen if not path.name.startswith("cache-"))


def _fingerprint(root: Path, labels: list[np.ndarray]) -> str:
    """Over labels and files."""
    digest = hashlib.sha256(digest_of(root, [str(path) for path in _files(root, "*.arrow", "*.parquet")]).encode())
    for column in labels:
        digest.update(column.astype(np.int64).tobytes())
    return digest.hexdigest()
