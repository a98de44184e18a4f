"""Data sets from real files: digits, a folder of images, and torchvision's formats."""

from __future__ import annotations

import gzip
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits, load_sample_image
from torchvision.transforms import v2

from metric_zoo import DataError
from metric_zoo.benchmarks.data import load_data
from metric_zoo.benchmarks.recipe_sections import DataConfig

FASHION = Path("/usr/share/datasets/fashion-mnist")


def test_digits_are_scikit_learns():
    splits = load_data(DataConfig(name="digits"))
    assert (len(splits.train), len(splits.test)) == (1437, 360) and splits.info.image_shape == (1, 8, 8)
    pixels = (splits.train.images[:, 0].double() * 16 / 255).round()
    originals = {image.tobytes() for image in load_digits().images}
    assert all(image.numpy().tobytes() in originals for image in pixels)
    stacked = torch.stack([splits.train[i][0] for i in range(len(splits.train))])
    assert abs(stacked.mean()) < 1e-3 and abs(stacked.std() - 1) < 1e-3
    assert splits.info.fingerprint == load_data(DataConfig(name="digits", image_size=16)).info.fingerprint


def test_resizing_and_channels():
    splits = load_data(DataConfig(name="digits", image_size=20, channels=3))
    image, _ = splits.test[0]
    assert image.shape == (3, 20, 20) and torch.equal(image[0], image[2])


def test_augmentation_touches_the_training_view_only():
    splits = load_data(DataConfig(name="digits", image_size=16, augment="crop-flip"))
    torch.manual_seed(1)
    views = [splits.train[0][0] for _ in range(8)]
    assert any(not torch.equal(views[0], view) for view in views)
    assert torch.equal(splits.train_clean[0][0], splits.train_clean[0][0])


@pytest.fixture
def image_folder(tmp_path):
    picture = load_sample_image("china.jpg")
    for split, count in (("train", 3), ("val", 2)):
        for label in ("cat", "dog"):
            folder = tmp_path / split / label
            folder.mkdir(parents=True)
            for i in range(count):
                Image.fromarray(picture[i * 40 : i * 40 + 30, : 40 + i]).save(folder / f"{i}.png")
    return tmp_path


def test_folder(image_folder):
    config = DataConfig(name="folder", root=str(image_folder), image_size=24)
    splits = load_data(config)
    assert splits.info.train_size == 6 and splits.info.test_size == 4 and splits.info.classes == 2
    image, label = splits.test[3]
    assert image.shape == (3, 24, 24) and -1 <= image.min() < image.max() <= 1 and label == 1
    before = splits.info.fingerprint
    (image_folder / "val/dog/0.png").unlink()
    assert load_data(config).info.fingerprint != before


def test_root_from_the_environment(image_folder, monkeypatch):
    monkeypatch.setenv("METRIC_ZOO_DATA", str(image_folder))
    assert load_data(DataConfig(name="folder", image_size=8)).info.train_size == 6


def test_cifar10_in_its_published_format(tmp_path, monkeypatch):
    """Random pixels in the real container; torchvision's checksums are of the real pixels, so they are skipped."""
    from torchvision import datasets

    monkeypatch.setattr(datasets.CIFAR10, "_check_integrity", lambda self: True)
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (10, 3072), dtype=np.uint8)
    for name in [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]:
        (folder / name).write_bytes(pickle.dumps({"data": pixels, "labels": list(range(10))}))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": list("abcdefghij")}))
    monkeypatch.setattr(datasets.CIFAR10, "_load_meta", lambda self: None)
    splits = load_data(DataConfig(name="cifar10", root=str(tmp_path)))
    assert splits.info.image_shape == (3, 32, 32) and splits.info.train_size == 50 and splits.info.classes == 10
    assert np.array_equal(splits.test.images[4].numpy().ravel(), pixels[4])


@pytest.mark.skipif(not FASHION.is_dir(), reason="Debian's dataset-fashion-mnist is not installed")
def test_fashion_mnist(tmp_path):
    raw = tmp_path / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    for file in FASHION.glob("*.gz"):
        with gzip.open(file) as source, (raw / file.stem).open("wb") as target:
            shutil.copyfileobj(source, target)
    splits = load_data(DataConfig(name="fashion-mnist", root=str(tmp_path)))
    assert (splits.info.train_size, splits.info.test_size, splits.info.classes) == (60_000, 10_000, 10)
    assert torch.bincount(splits.test.labels).tolist() == [1000] * 10


def test_damaged_files_of_fashion_mnist(tmp_path):
    raw = tmp_path / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    for split in ("train", "t10k"):
        for name in ("images-idx3", "labels-idx1"):
            (raw / f"{split}-{name}-ubyte").touch()
    with pytest.raises(DataError, match="'fashion-mnist' is not in") as error:
        load_data(DataConfig(name="fashion-mnist", root=str(tmp_path)))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"name": "digit"}, "unknown data set 'digit'; did you mean 'digits'"),
        ({"name": "cifar10"}, "'cifar10' is not in .*METRIC_ZOO_DATA"),
        ({"name": "fashion-mnist"}, "'fashion-mnist' is not in"),
        ({"name": "folder"}, "needs data.image_size"),
        ({"name": "folder", "image_size": 8}, "has no folder train/<class>"),
    ],
)
def test_errors(config, message, tmp_path, monkeypatch):
    monkeypatch.setenv("METRIC_ZOO_DATA", str(tmp_path))
    with pytest.raises(DataError, match=message):
        load_data(DataConfig(**config))


def test_folders_must_agree_on_classes(image_folder):
    (image_folder / "val/dog").rename(image_folder / "val/fox")
    with pytest.raises(DataError, match="different classes, e.g. 'dog'"):
        load_data(DataConfig(name="folder", root=str(image_folder), image_size=8))


def test_one_class_is_refused(image_folder):
    for split in ("train", "val"):
        shutil.rmtree(image_folder / split / "dog")
    with pytest.raises(DataError, match="has one class, 'cat': there is nothing to tell apart"):
        load_data(DataConfig(name="folder", root=str(image_folder), image_size=8))


def test_unreadable_images_are_named_and_left_out_only_when_allowed(image_folder):
    bad = image_folder / "train" / "cat" / "1.png"
    bad.write_bytes(bad.read_bytes()[:60])
    config = DataConfig(name="folder", root=str(image_folder), image_size=8)
    with pytest.raises(DataError, match=r"train/cat/1\.png cannot be read .*skip_unreadable"):
        load_data(config).train[1]
    splits = load_data(config.model_copy(update={"skip_unreadable": True}))
    assert splits.info.unreadable == 1 and splits.info.train_size == 5
    assert all(splits.train[i][0].shape == (3, 8, 8) for i in range(5))


def test_resized_crops_see_the_picture_as_it_is(image_folder):
    """A crop of the whole picture, not of one already shrunk: with torchvision's own transform as the oracle."""
    config = DataConfig(name="folder", root=str(image_folder), image_size=8, augment="resized-crop-flip")
    train = load_data(config).train
    torch.manual_seed(3)
    found, _ = train[0]
    torch.manual_seed(3)
    crop = v2.Compose([v2.RandomResizedCrop(8, antialias=True), v2.RandomHorizontalFlip()])
    picture = v2.functional.to_image(Image.open(train.samples[0][0]).convert("RGB"))
    torch.testing.assert_close(found, crop(picture).float() / 127.5 - 1, rtol=0, atol=1e-5)
