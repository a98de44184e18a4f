"""The one reader of pictures: every orientation, mode, range and fault, with PIL as the oracle."""

from __future__ import annotations

import io
import os
import socket
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from metric_zoo.errors import DataError
from metric_zoo.images import levels, of_8_bits, read_image, read_levels, write_image

GREY = np.arange(12, dtype=np.uint8).reshape(3, 4) * 20
COLOUR = np.stack([GREY, GREY[:, ::-1], 255 - GREY], -1)


def tagged(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x112] = orientation
    return exif


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
def test_orientations_are_pils(tmp_path, orientation, suffix):
    path = tmp_path / f"p.{suffix}"
    Image.fromarray(COLOUR).save(path, exif=tagged(orientation))
    with Image.open(path) as picture:
        expected = np.asarray(ImageOps.exif_transpose(picture))
        assert np.array_equal(levels(picture), expected)
    found = read_levels(path)
    assert found.shape == ((4, 3, 3) if orientation >= 5 else (3, 4, 3)) and np.array_equal(found, expected)


@pytest.mark.parametrize("orientation", [5, 6])
@pytest.mark.parametrize("mode", ["I;16", "P", "LA", "1", "CMYK"])
def test_orientation_of_every_mode(tmp_path, mode, orientation):
    """The oracle turns what is read without a tag."""
    pixels = Image.fromarray(GREY.astype(np.uint16) * 257) if mode == "I;16" else Image.fromarray(GREY).convert(mode)
    plain, turned = tmp_path / "plain.tif", tmp_path / "turned.tif"
    pixels.save(plain)
    pixels.save(turned, exif=tagged(orientation))
    expected = np.rot90(read_levels(plain), -1) if orientation == 6 else read_levels(plain).swapaxes(0, 1)
    assert np.array_equal(read_levels(turned), expected)


@pytest.mark.parametrize("orientation", [0, 9, 300])
def test_no_such_orientation(tmp_path, orientation):
    Image.fromarray(GREY).save(tmp_path / "p.png", exif=tagged(orientation))
    assert np.array_equal(read_levels(tmp_path / "p.png"), GREY)


def test_damaged_metadata_spoil_no_pixel(tmp_path):
    Image.fromarray(GREY).save(tmp_path / "p.png", exif=b"Exif\0\0II*\0\xff\xff\xff\xff" + bytes(40))
    assert np.array_equal(read_levels(tmp_path / "p.png"), GREY)


RANGES = {
    "16 bits": ("png", GREY.astype(np.uint16), np.uint16, 65535),
    "16 bits, dark": ("tif", (GREY // 20).astype(np.uint16), np.uint16, 65535),
    "int32 of 8 bits": ("tif", GREY.astype(np.int32), np.uint8, 255),
    "int32 of 16 bits": ("tif", GREY.astype(np.int32) * 257, np.uint16, 65535),
    "float": ("tif", (GREY / 255).astype(np.float32), np.float32, 1),
}


@pytest.mark.parametrize("name", RANGES)
def test_ranges(tmp_path, name):
    """The pixels that were written, over what white is."""
    suffix, pixels, dtype, white = RANGES[name]
    path = tmp_path / f"p.{suffix}"
    Image.fromarray(pixels).save(path)
    assert read_levels(path).dtype == dtype
    expected = torch.from_numpy(pixels.astype(np.float64) / white).float()
    torch.testing.assert_close(read_image(path)[0, 0], expected, rtol=0, atol=1e-7)
    rounded = np.floor(pixels / 257) if dtype == np.uint16 else np.rint(pixels * (255.0 / white))
    assert np.array_equal(of_8_bits(read_levels(path)), rounded.astype(np.uint8))


def test_a_pgm_of_16_bits_is_dark_where_it_says_so(tmp_path):
    (tmp_path / "p.pgm").write_bytes(b"P5 2 1 65535\n" + bytes([0, 5, 0, 255]))
    assert read_levels(tmp_path / "p.pgm").tolist() == [[5, 255]] and read_levels(tmp_path / "p.pgm").dtype == np.uint16


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (GREY.astype(np.int32) - 1, "pixels from -1 to 219 have no known range"),
        (GREY.astype(np.int32) * 1000, "pixels from 0 to 220000"),
        (GREY.astype(np.float32), "floating-point pixels from 0.0 to 220.0 have no known range, expected 0 to 1"),
        (GREY.astype(np.float32) / np.float32(219.7), r"pixels from 0.0 to 1.00136\d* have"),
        (np.full((2, 2), np.nan, np.float32), "floating-point pixels from nan"),
    ],
    ids=["negative", "large", "float levels", "float", "NaN"],
)
def test_unknown_ranges(tmp_path, pixels, message):
    Image.fromarray(pixels).save(tmp_path / "p.tif")
    with pytest.raises(DataError, match=message):
        read_levels(tmp_path / "p.tif")


def transparent(mode: str) -> Image.Image:
    """Its left half cannot be seen."""
    picture = Image.fromarray(
        np.dstack([COLOUR, np.where(np.arange(4) < 2, 0, 255)[None].repeat(3, 0)]).astype(np.uint8)
    )
    return picture.convert(mode) if mode != "P" else picture.quantize(16)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_is_dropped(tmp_path, mode):
    """The oracle is PIL's conversion to a mode without it."""
    transparent(mode).save(tmp_path / "p.png")
    expected = np.asarray(transparent(mode).convert("L" if mode == "LA" else "RGB"))
    assert np.array_equal(read_levels(tmp_path / "p.png"), expected)


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "YCbCr", "RGB"])
def test_modes(tmp_path, mode):
    picture = Image.fromarray(COLOUR).convert(mode)
    picture.save(tmp_path / "p.tif")
    expected = np.asarray(picture.convert("L" if mode in ("1", "L") else "RGB"))
    assert np.array_equal(read_levels(tmp_path / "p.tif"), expected)


def test_the_first_frame(tmp_path):
    frames = [Image.fromarray(np.full((3, 4), value, np.uint8)) for value in (50, 200)]
    for name in ("p.gif", "p.tif", "p.webp"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], lossless=True)
        found = read_levels(tmp_path / name)
        assert found.shape[:2] == (3, 4) and (found == 50).all(), name


def truncated(path: Path) -> None:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)).save(file, "PNG")
    path.write_bytes(file.getvalue()[:2000])


def bomb(path: Path) -> None:
    path.write_bytes(b"P5 100000 100000 255\n")


def bound_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(path))


FAULTS = {
    "missing": (lambda path: None, "No such file"),
    "truncated": (truncated, "truncated"),
    "bomb": (bomb, "decompression bomb"),
    "empty": (lambda path: path.touch(), "no format that PIL knows"),
    "no pixels": (lambda path: path.write_bytes(b"P5 0 4 255\n"), "no format that PIL knows"),
    "pipe": (os.mkfifo, "it is a named pipe, not a file"),
    "socket": (bound_socket, "it is a socket, not a file"),
    "device": (lambda path: path.symlink_to("/dev/zero"), "it is a device, not a file"),
    "folder": (Path.mkdir, "it is a folder, not a file"),
    "links in a circle": (lambda path: path.symlink_to(path), "symbolic links"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_faults_are_named_in_one_line(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)  # a socket's name is short
    make, message = FAULTS[name]
    make(Path("p.png"))
    with pytest.raises(DataError, match=rf"p\.png cannot be read as a picture: .*{message}") as error:
        read_levels(tmp_path / "p.png")
    assert "\n" not in str(error.value)


def test_floating_point_pixels_may_overshoot_a_little(tmp_path):
    Image.fromarray(np.float32([[-0.0009, 0.5, 1.0009]])).save(tmp_path / "p.tif")
    assert read_levels(tmp_path / "p.tif").tolist() == [[0.0, 0.5, 1.0]]


def test_a_path_may_be_text(tmp_path):
    write_image(torch.zeros(1, 1, 2, 2), str(tmp_path / "p.png"))
    assert not read_image(str(tmp_path / "p.png")).any()
    with pytest.raises(TypeError, match="int"):
        read_image(3)


def test_a_name_that_is_not_utf_8(tmp_path):
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.png"))
    Image.fromarray(GREY).save(path)
    assert np.array_equal(read_levels(path), GREY)
    path.write_bytes(b"")
    with pytest.raises(DataError) as error:
        read_levels(path)
    assert str(error.value).encode() and r"caf\udce9.png" in str(error.value)
