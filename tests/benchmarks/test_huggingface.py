"""Hugging Face data sets on disk, and what is done with pictures."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from metric_zoo.benchmarks.data import load_data
from metric_zoo.benchmarks.data.pictures import Preparation
from metric_zoo.benchmarks.recipe_sections import DataConfig
from metric_zoo.errors import DataError

datasets = pytest.importorskip("datasets")


def pictures(count: int, seed: int, mode: str = "RGB") -> list[Image.Image]:
    draw = np.random.default_rng(seed)
    sizes = draw.integers(20, 40, (count, 2))
    return [Image.fromarray(draw.integers(0, 256, (*size, 3), dtype=np.uint8)).convert(mode) for size in sizes]


def table(images: list[Image.Image], names: tuple[str, ...] = ("cat", "dog"), label: str = "label"):
    features = datasets.Features({"img": datasets.Image(), label: datasets.ClassLabel(names=list(names))})
    labels = [i % len(names) for i in range(len(images))]
    return datasets.Dataset.from_dict({"img": images, label: labels}, features=features)


def write(root: Path, form: str, tables: dict) -> None:
    if form == "arrow":
        datasets.DatasetDict(tables).save_to_disk(str(root))
        return
    (root / "data").mkdir(parents=True)
    for split, rows in tables.items():
        rows.to_parquet(str(root / "data" / f"{split}-00000-of-00001.parquet"))


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("form", ["arrow", "parquet"])
@pytest.mark.parametrize("test", ["test", "validation"])
def test_both_forms(tmp_path, form, test):
    """The oracle: PIL and torchvision's chain of transforms on the pictures that were written."""
    images = {"train": pictures(6, 0), test: pictures(4, 1, "L")}
    write(tmp_path / "set", form, {split: table(found) for split, found in images.items()})
    config = DataConfig(name="huggingface", root=str(tmp_path / "set"), image_size=24)
    splits = load_data(config)
    info = splits.info
    assert (info.name, info.train_size, info.test_size, info.classes) == ("huggingface:set", 6, 4, 2)
    assert load_data(config.model_copy(update={"label": "Pets"})).info.name == "Pets"
    for view, found in ((splits.train_clean, images["train"]), (splits.test, images[test])):
        for index, picture in enumerate(found):
            image, label = view[index]
            assert label == index % 2
            torch.testing.assert_close(image, chain(24)(picture.convert("RGB")))


def test_more_columns_and_splits_than_one(tmp_path):
    """CIFAR-100's form: two columns of labels; and a test split whose labels are secret."""
    rows = table(pictures(4, 0), label="fine").add_column("coarse", [1, 0, 1, 0])
    rows = rows.cast_column("coarse", datasets.ClassLabel(names=["a", "b"]))
    secret = rows.map(lambda row: {"fine": -1, "coarse": -1})
    write(tmp_path / "set", "arrow", {"train": rows, "test": secret, "validation": rows})
    config = DataConfig(name="huggingface", root=str(tmp_path / "set"), image_size=8)
    with pytest.raises(DataError, match="the columns fine, coarse of type ClassLabel, name one by data.label_column"):
        load_data(config)
    with pytest.raises(DataError, match="not 'medium'"):
        load_data(config.model_copy(update={"label_column": "medium"}))
    splits = load_data(config.model_copy(update={"label_column": "coarse"}))
    assert [label for _, label in splits.test] == [1, 0, 1, 0]


def test_parquet_folders(tmp_path):
    """The hub's converted form names the split by its folder; two configurations are not one data set."""
    for split, count in (("train", 4), ("test", 2)):
        (tmp_path / "set" / "a" / split).mkdir(parents=True)
        table(pictures(count, 0)).to_parquet(str(tmp_path / "set" / "a" / split / "0000.parquet"))
    config = DataConfig(name="huggingface", root=str(tmp_path / "set"), image_size=8)
    assert load_data(config).info.train_size == 4
    (tmp_path / "set" / "b" / "train").mkdir(parents=True)
    table(pictures(4, 0)).to_parquet(str(tmp_path / "set" / "b" / "train" / "0000.parquet"))
    with pytest.raises(DataError, match="has a split 'train' in a/train and in b/train"):
        load_data(config)


def test_what_the_library_computes_beside_the_data_is_not_data(tmp_path):
    write(tmp_path / "set", "arrow", {"train": table(pictures(4, 0)), "test": table(pictures(2, 0))})
    config = DataConfig(name="huggingface", root=str(tmp_path / "set"), image_size=8)
    before = load_data(config).info.fingerprint
    datasets.load_from_disk(str(tmp_path / "set"))["train"].filter(lambda row: row["label"] == 0)
    assert list((tmp_path / "set").rglob("cache-*")) and load_data(config).info.fingerprint == before
    with pytest.raises(DataError, match="skip_unreadable is for the data set 'folder'"):
        load_data(config.model_copy(update={"skip_unreadable": True}))


def test_pictures_of_16_bits_and_of_one_channel():
    """Grey stays what it is, to the level; PIL alone would make 16 bits white."""
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    expected = torch.from_numpy(grey)[None].float() / 127.5 - 1
    for channels in (1, 3):
        prepare = Preparation(DataConfig(name="folder", image_size=16, channels=channels), augmented=False)
        for picture in (Image.fromarray(grey), Image.fromarray(grey.astype(np.uint16) * 257)):
            torch.testing.assert_close(prepare(picture), expected.expand(channels, -1, -1))
    with pytest.raises(ValueError, match="no known range"):
        prepare(Image.fromarray(grey.astype(np.float32)))


def chain(size: int, *augmentations: v2.Transform, channels: int = 3) -> v2.Transform:
    colour = [v2.Lambda(lambda picture: picture.convert("L" if channels == 1 else "RGB"))]
    resize = v2.Resize((size, size), antialias=True)
    scale = [v2.ToDtype(torch.float32, scale=True), v2.Normalize([0.5], [0.5]), v2.ToPureTensor()]
    return v2.Compose([*colour, v2.ToImage(), resize, *augmentations, *scale])


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [16, 32])
def test_preparation_is_torchvisions_chain(channels, size):
    (picture,) = pictures(1, 2)
    picture = picture.resize((32, 32))
    config = DataConfig(name="folder", image_size=size, channels=channels, augment="crop-flip")
    augmentations = [v2.RandomCrop(size, padding=size // 8), v2.RandomHorizontalFlip()]
    for ours, theirs in (
        (Preparation(config, augmented=False), chain(size, channels=channels)),
        (Preparation(config, augmented=True), chain(size, *augmentations, channels=channels)),
    ):
        torch.manual_seed(3)
        found = ours(picture)
        torch.manual_seed(3)
        torch.testing.assert_close(found, theirs(picture), rtol=0, atol=1e-6)


def test_the_fingerprint_tells_labels_apart(tmp_path):
    found = []
    for number, names in enumerate((("a", "b"), ("a", "b", "c"))):
        root = tmp_path / str(number)
        write(root, "arrow", {"train": table(pictures(6, 0), names), "test": table(pictures(4, 1), names)})
        found.append(load_data(DataConfig(name="huggingface", root=str(root), image_size=8)).info.fingerprint)
    assert found[0] != found[1]


def no_labels(rows):
    return rows.remove_columns("label")


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ({"train": lambda: table(pictures(2, 0))}, "has the splits train; expected train, and test or validation"),
        (
            {"train": lambda: no_labels(table(pictures(2, 0)))} | {"test": lambda: table(pictures(2, 0))},
            "no column of type ClassLabel, and needs one",
        ),
        (dict.fromkeys(("train", "test"), lambda: table(pictures(2, 0), ("cat",))), "has one class"),
        (
            {"train": lambda: table(pictures(2, 0)), "test": lambda: table(pictures(2, 0), ("cat", "fox"))},
            "train and test have different columns or classes",
        ),
    ],
    ids=["no test split", "no labels", "one class", "other classes"],
)
def test_what_is_missing_is_named(tmp_path, tables, message):
    write(tmp_path / "set", "arrow", {split: make() for split, make in tables.items()})
    with pytest.raises(DataError, match=message):
        load_data(DataConfig(name="huggingface", root=str(tmp_path / "set"), image_size=8))


def test_what_is_no_data_set(tmp_path, monkeypatch):
    config = DataConfig(name="huggingface", root=str(tmp_path / "set"), image_size=8)
    with pytest.raises(DataError, match="is not a folder"):
        load_data(config)
    (tmp_path / "set").mkdir()
    with pytest.raises(DataError, match=r"neither dataset_dict.json nor \*.parquet"):
        load_data(config)
    (tmp_path / "set" / "train.parquet").write_bytes(b"no parquet")
    with pytest.raises(DataError, match="cannot be read as a Hugging Face data set"):
        load_data(config)
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match=r"pip install 'metric-zoo\[huggingface\]'"):
        load_data(config)


@pytest.mark.parametrize("content", ["{}", "[1]", '{"splits": []}', "7", ""])
def test_a_damaged_list_of_splits(tmp_path, content):
    (tmp_path / "dataset_dict.json").write_text(content)
    with pytest.raises(DataError, match="Hugging Face data set") as error:
        load_data(DataConfig(name="huggingface", root=str(tmp_path), image_size=8))
    assert "\n" not in str(error.value)


def test_an_unreadable_image_is_named(tmp_path):
    rows = table(pictures(4, 0)).cast_column("img", datasets.Image(decode=False))
    broken = rows.map(
        lambda row, i: {"img": {"bytes": row["img"]["bytes"][: 60 if i == 2 else None], "path": None}},
        with_indices=True,
    )
    broken = broken.cast_column("img", datasets.Image())
    write(tmp_path / "set", "arrow", {"train": broken, "test": table(pictures(2, 0))})
    splits = load_data(DataConfig(name="huggingface", root=str(tmp_path / "set"), image_size=8))
    splits.train_clean[1]
    with pytest.raises(DataError, match="set, split train: image 2 cannot be read"):
        splits.train_clean[2]
