"""Folders of pictures as they lie on disks: what counts, what is refused, and how changes are noticed."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import platformdirs
import pytest
import torch
from PIL import Image, ImageOps
from torchvision.datasets import ImageFolder

from metric_zoo import DataError
from metric_zoo.benchmarks.data import digests, load_data
from metric_zoo.benchmarks.data.noisy import load_noisy
from metric_zoo.benchmarks.log import RunLog
from metric_zoo.benchmarks.provenance import Clock
from metric_zoo.benchmarks.recipe import load_recipe
from metric_zoo.benchmarks.recipe_sections import DataConfig
from metric_zoo.benchmarks.runs import expand
from metric_zoo.benchmarks.sweep import failed_record

PIXELS = np.arange(16 * 12, dtype=np.uint8).reshape(12, 16)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    """The user's cache folder."""
    monkeypatch.setattr(platformdirs, "user_cache_dir", lambda name: str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def root(tmp_path) -> Path:
    root = tmp_path / "data"
    for number, path in enumerate(root / s / c / f"{i}.bmp" for s in ("train", "test") for c in "ab" for i in range(2)):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(PIXELS + number).save(path)
    return root


def config(root: Path, **changes) -> DataConfig:
    return DataConfig(name="folder", root=str(root), image_size=16, **changes)


def test_a_photo_stands_upright_from_every_source(tmp_path):
    """PIL turns the oracle."""
    datasets = pytest.importorskip("datasets")
    exif = Image.Exif()
    exif[0x112] = 6
    files = [tmp_path / split / label / "p.jpg" for split in ("train", "test") for label in "ab"]
    for file in files:
        file.parent.mkdir(parents=True)
        Image.fromarray(PIXELS).convert("RGB").save(file, exif=exif)
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b"])})
    table = datasets.Dataset.from_dict({"image": [str(file) for file in files[2:]], "label": [0, 1]}, features=features)
    datasets.DatasetDict({"train": table, "test": table}).save_to_disk(str(tmp_path / "set"))
    library = DataConfig(name="huggingface", root=str(tmp_path / "set"), image_size=16)
    noisy = DataConfig(name="folder", root=str(tmp_path), image_size=12, noise=0.1, channels=3)
    with Image.open(files[0]) as picture:
        upright = torch.from_numpy(np.array(ImageOps.exif_transpose(picture))).permute(2, 0, 1) / 255
    one, other = (load_data(source).test[0][0] for source in (config(tmp_path), library))
    assert torch.equal(one, other)
    torch.testing.assert_close(load_noisy(noisy).test[0][1], upright[:, 2:14], rtol=0, atol=1e-6)


def test_what_is_hidden_does_not_count(root):
    """Samples and order are those of torchvision before anything was left behind."""
    before, fingerprint = ImageFolder(root / "train").samples, load_data(config(root)).info.fingerprint
    picture = root / "train" / "a" / "0.bmp"
    for place in ("train/.ipynb_checkpoints", "train/__MACOSX", "train/a/.thumbs", "train/a/@eaDir/deep", "test/.git"):
        (root / place).mkdir(parents=True)
        shutil.copy(picture, root / place / "0.bmp")
    for name in ("train/a/._0.bmp", "train/b/.hidden.png", "train/.DS_Store", "test/a/Thumbs.db", "train/readme.txt"):
        (root / name).write_bytes(b"no picture")
    splits = load_data(config(root))
    assert splits.train.samples == before and splits.info.fingerprint == fingerprint
    assert load_noisy(config(root, noise=0.1)).info.train_size == len(before)


def test_the_order_is_torchvisions(root):
    for name in ("b/z/1.BMP", "b/Z.bmp", "b/a/2.bmp", "b-c/x.bmp", "b/10.bmp"):
        (root / "train" / name).parent.mkdir(exist_ok=True)
        shutil.copy(root / "train/a/0.bmp", root / "train" / name)
    (root / "test" / "b-c").mkdir()
    shutil.copy(root / "train/a/0.bmp", root / "test/b-c")
    assert load_data(config(root)).train.samples == ImageFolder(root / "train").samples


def nested(path: Path) -> None:
    (path / "/".join("d" * 120)).mkdir(parents=True)


def linked_to_itself(path: Path) -> None:
    path.symlink_to(path.parent, target_is_directory=True)


@pytest.mark.parametrize(
    ("name", "make", "message"),
    [
        ("x.jpg", os.mkfifo, r"x\.jpg cannot be read: it is a named pipe, not a file"),
        ("x.jpg", lambda path: path.symlink_to("/dev/zero"), r"x\.jpg cannot be read: it is a device, not a file"),
        ("x.jpg", lambda path: path.symlink_to("nowhere"), r"x\.jpg is missing"),
        ("x.jpg", lambda path: path.symlink_to(path), r"x\.jpg cannot be read: .*symbolic links"),
        ("x", nested, "train.* has folders more than 100 deep"),
        ("x", linked_to_itself, r"x leads back to a folder above it"),
    ],
    ids=["pipe", "device", "link to nothing", "link to itself", "deep", "folder in itself"],
)
def test_what_is_no_file_is_refused_at_once(root, name, make, message):
    make(root / "train" / "a" / name)
    for load, changes in ((load_data, {}), (load_noisy, {"noise": 0.1})):
        with pytest.raises(DataError, match=message) as error:
            load(config(root, **changes))
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("skip", [False, True], ids=["all", "readable"])
def test_a_folder_may_have_a_picture_s_name(root, skip):
    for split in ("train", "test"):
        (root / split / "a").rename(root / split / "a.jpg")
        (root / split / "a.jpg" / "sub.tif").mkdir()
        Image.fromarray(PIXELS).save(root / split / "a.jpg" / "sub.tif" / "p.png")
    info = load_data(config(root, skip_unreadable=skip)).info
    assert (info.train_size, info.test_size, info.classes, info.unreadable) == (5, 5, 2, 0)


def test_a_pipe_may_be_left_out(root):
    os.mkfifo(root / "train/a/x.jpg")
    info = load_data(config(root, skip_unreadable=True)).info
    assert (info.unreadable, info.train_size) == (1, 4)


def test_an_empty_class_is_named(root):
    for split in ("train", "test"):
        (root / split / "c").mkdir()
    with pytest.raises(DataError, match="is not a folder of image classes: c holds no image"):
        load_data(config(root))


def test_names_that_are_not_utf_8(root, tmp_path, write_recipe):
    """In reading, errors, logs and records."""
    bad = Path(os.fsdecode(os.fsencode(root) + b"-\xe9"))
    root.rename(bad)
    for split in ("train", "test"):
        (bad / split / "a").rename(os.fsdecode(os.fsencode(bad / split) + b"/caf\xe9"))
    splits = load_data(config(bad))
    image, label = splits.train[2]
    assert image.shape == (3, 16, 16) and label == 1 and splits.info.name == r"folder:data-\udce9"
    broken = Path(splits.train.samples[3][0])
    broken.write_bytes(b"")
    with pytest.raises(DataError, match=r"caf\\udce9/1\.bmp cannot be read") as error:
        splits.train[3]
    (run,) = expand(load_recipe(write_recipe(kinds=["standard"])))
    RunLog(tmp_path / "log").failure(error.value)
    RunLog(tmp_path / "log").write(str(broken))
    assert rb"caf\udce9" in (tmp_path / "log").read_bytes()
    record = failed_record(run, Clock(), "OSError", f"[Errno 5] Input/output error: '{broken}'")
    assert r"caf\udce9" in json.loads(record.model_dump_json())["failure"]["message"]


def test_contents_are_noticed_though_names_sizes_and_times_are_the_same(root):
    before, file = load_data(config(root)).info.fingerprint, root / "train" / "b" / "1.bmp"
    status, pixels = file.stat(), file.read_bytes()
    file.write_bytes(pixels[:-1] + bytes([pixels[-1] ^ 1]))
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert file.stat().st_size == status.st_size and load_data(config(root)).info.fingerprint != before
    file.write_bytes(pixels)
    assert load_data(config(root)).info.fingerprint == before
    (root / "train" / "b" / "1.bmp").rename(root / "train" / "a" / "7.bmp")
    assert load_data(config(root)).info.fingerprint != before


@pytest.fixture
def reads(root, monkeypatch) -> list[str]:
    """What is read, once all files are old enough to be believed."""
    monkeypatch.setattr(digests, "_FRESH", -1)
    found, read = [], digests._digest
    monkeypatch.setattr(digests, "_digest", lambda path: found.append(path) or read(path))
    return found


def test_a_second_launch_reads_nothing(root, cache, reads):
    first = load_data(config(root)).info.fingerprint
    assert len(reads) == 8 and len(list(cache.rglob("*.json"))) == 1
    assert load_data(config(root)).info.fingerprint == first and len(reads) == 8
    Image.fromarray(PIXELS).save(root / "test/a/0.bmp")
    load_data(config(root))
    assert [Path(path).name for path in reads[8:]] == ["0.bmp"]


def test_a_picture_that_is_listed_twice(root):
    (root / "ImageSets/Segmentation").mkdir(parents=True)
    (root / "JPEGImages").mkdir()
    Image.fromarray(PIXELS).save(root / "JPEGImages/x.jpg")
    for split in ("train", "val"):
        (root / f"ImageSets/Segmentation/{split}.txt").write_text("x\nx\n")
    assert load_noisy(DataConfig(name="voc", root=str(root), noise=0.1, image_size=12)).info.train_size == 2


def test_files_written_a_moment_ago_are_read_again(root, cache, monkeypatch):
    """They could change once more without another time."""
    monkeypatch.setattr(digests, "_FRESH", 10**12)
    load_data(config(root))
    assert not list(cache.rglob("*.json"))


@pytest.mark.parametrize("content", ["", "[", "[" * 100_000, "[]", '{"train/a/0.bmp": 1}', "nothing", "\udce9"])
def test_a_damaged_cache_costs_time_only(root, cache, reads, content):
    first = load_data(config(root)).info.fingerprint
    (file,) = cache.rglob("*.json")
    file.write_bytes(os.fsencode(content))
    assert load_data(config(root)).info.fingerprint == first and len(reads) == 16


def test_without_a_place_for_the_cache(root, cache, reads):
    cache.write_text("a file where the folder should be")
    first = load_data(config(root)).info.fingerprint
    assert load_data(config(root)).info.fingerprint == first and len(reads) == 16
