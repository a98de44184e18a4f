"""Pictures from files and into files."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import ExifTags, Image, UnidentifiedImageError
from torch import Tensor

from metric_zoo.errors import DataError
from metric_zoo.files import check_regular, replacing
from metric_zoo.text import told

_OVERSHOOT = 1e-3
"""By which floating-point pixels may leave [0, 1], as resizing and colour transforms leave them."""


def read_image(path: Path | str) -> Tensor:
    """A grey or colour picture, as `read_levels` finds it.

    Returns:
        ``(1, C, H, W)`` float32 in [0, 1]; C is 1 or 3.

    Raises:
        DataError: if the file is missing or no picture, or its pixels are of no known range.
    """
    pixels = read_levels(path)
    image = torch.from_numpy(pixels.astype(np.float32)).reshape(*pixels.shape[:2], -1).permute(2, 0, 1)[None]
    return (image / white(pixels)).contiguous()


def read_levels(path: Path | str) -> np.ndarray:
    """What a file of any of PIL's formats shows: the first of several frames, as `levels` has it.

    Raises:
        DataError: if the file is missing, no file but a pipe or a folder, or no whole picture, or its pixels are of no
            known range.
    """
    name = os.fspath(path)  # what is no path at all is no fault of a file
    try:
        check_regular(name)
        with open(name, "rb") as file, Image.open(file) as picture:  # PIL maps a named TIFF and turns it wrongly
            return levels(picture)
    except UnidentifiedImageError:
        raise DataError(f"{path} cannot be read as a picture: it is of no format that PIL knows") from None
    except Exception as error:  # whatever a decoder makes of damaged bytes: PIL's raise a dozen kinds
        raise DataError(f"{path} cannot be read as a picture: {told(error)}") from None


def read_8_bits(path: Path | str) -> Image.Image:
    """What `read_levels` finds, as a picture of PIL's with 8 bits, grey or in colour.

    Raises:
        DataError: as `read_levels`.
    """
    return Image.fromarray(of_8_bits(read_levels(path)))


def levels(picture: Image.Image) -> np.ndarray:
    """The pixels of a picture, upright as its EXIF orientation says, whatever its mode.

    Transparency is dropped (the colours below it stay), a palette becomes colour, CMYK and the like become RGB, one bit
    becomes black and white. White is 255, or 65535 where the mode or the format has 16 bits; whole numbers of 32 bits
    are of the first range if none is above 255, else of the second; floating-point numbers are in [0, 1], but for
    a thousandth, which is cut off.

    Returns:
        ``(H, W)`` for grey or ``(H, W, 3)``; uint8, uint16 or float32, `white` of which is white.

    Raises:
        ValueError: for a picture without pixels, or pixels of no known range; OSError, SyntaxError and others for what
            cannot be decoded.
    """
    if min(picture.size) < 1:
        raise ValueError(f"{picture.width} x {picture.height} pixels are no picture")
    picture.load()
    method = _UPRIGHT.get(_orientation(picture))
    found = _in_range(picture)
    return found if method is None else np.ascontiguousarray(method(found))


def white(pixels: np.ndarray) -> int:
    """The value of white in what `levels` returns."""
    return 1 if pixels.dtype.kind == "f" else int(np.iinfo(pixels.dtype).max)


def of_8_bits(pixels: np.ndarray) -> np.ndarray:
    """What `levels` returns, as uint8: 16 bits lose the lower eight."""
    if pixels.dtype == np.uint8:
        return pixels
    return (pixels // 257 if pixels.dtype == np.uint16 else np.rint(pixels * 255)).astype(np.uint8)


_UPRIGHT: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.swapaxes(0, 1),
    6: lambda pixels: np.rot90(pixels, -1),
    7: lambda pixels: np.rot90(pixels, 2).swapaxes(0, 1),
    8: np.rot90,
}
"""By EXIF orientation; PIL transposes not every mode."""


def _orientation(picture: Image.Image) -> int:
    try:
        return picture.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # damaged metadata, of which PIL raises a dozen kinds, spoil no pixel
        return 1


def _in_range(picture: Image.Image) -> np.ndarray:
    if picture.mode == "F":
        return _of_floats(np.asarray(picture))
    if picture.mode.startswith("I"):
        wide = picture.mode.startswith("I;16") or picture.format in ("PNG", "PPM")  # PIL scales PPM's to 65535
        return _of_integers(np.asarray(picture), wide)
    return np.array(picture.convert("L" if picture.mode in ("1", "L", "LA", "La") else "RGB"))


def _of_floats(values: np.ndarray) -> np.ndarray:
    low, high = values.min(), values.max()
    if not (low >= -_OVERSHOOT and high <= 1 + _OVERSHOOT):  # nor is NaN
        raise ValueError(f"floating-point pixels from {low} to {high} have no known range, expected 0 to 1")
    return values.astype(np.float32).clip(0, 1)


def _of_integers(values: np.ndarray, wide: bool) -> np.ndarray:
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > 65535:
        raise ValueError(f"pixels from {low} to {high} have no known range, expected 0 to 255 or to 65535")
    return values.astype(np.uint16 if wide or high > 255 else np.uint8)


def in_channels(image: Tensor, channels: int) -> Tensor:
    """``(..., C, H, W)`` in as many channels, C and ``channels`` 1 or 3; grey by the weights of ITU-R BT.601."""
    if image.shape[-3] == channels:
        return image
    if channels == 3:
        return image.expand(*image.shape[:-3], 3, *image.shape[-2:])
    return (image.new_tensor([0.299, 0.587, 0.114])[:, None, None] * image).sum(-3, keepdim=True)


def centre_crop(image: Tensor, size: int) -> Tensor:
    """``(..., size, size)``: the middle of ``(..., H, W)``, which is at least as large."""
    top, left = ((side - size) // 2 for side in image.shape[-2:])
    return image[..., top : top + size, left : left + size]


def write_image(image: Tensor, path: Path | str) -> None:
    """Write ``(1, C, H, W)`` in [0, 1], C 1 or 3, with 8 bits; the whole file or none.

    Raises:
        DataError: if the file's name says no format that PIL writes, or it cannot be written.
    """
    levels = (image[0].clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    path = Path(path)
    form = Image.registered_extensions().get(path.suffix.lower())
    if form is None:
        raise DataError(f"{path} has no ending of a picture, such as .png")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            Image.fromarray(levels[..., 0] if levels.shape[2] == 1 else levels).save(temporary, format=form)
    except OSError as error:
        raise DataError(f"{path} cannot be written: {error.strerror or error}") from None
