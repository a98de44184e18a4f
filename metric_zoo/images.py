"""Pictures from files and into files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from metric_zoo.errors import DataError
from metric_zoo.files import replacing


def read_image(path: Path) -> Tensor:
    """A grey or colour picture of 8 or 16 bits.

    Returns:
        ``(1, C, H, W)`` float32 in [0, 1]; C is 1 or 3. Transparency is dropped, a palette becomes colour.

    Raises:
        DataError: if the file is missing or no picture, or its pixels are of no known range.
    """
    try:
        with Image.open(path) as picture:
            most = brightest(picture)
            grey = most > 255 or picture.mode in ("1", "L", "LA", "La")
            plain = picture if most > 255 else picture.convert("L" if grey else "RGB")
            pixels = np.asarray(plain, dtype=np.float32)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{path} cannot be read as a picture: {error}") from None
    image = torch.from_numpy(pixels.copy()).reshape(*pixels.shape[:2], -1).permute(2, 0, 1)[None]
    return (image / most).contiguous()


def brightest(picture: Image.Image) -> int:
    """The value of white: 65535 for a picture of 16 bits (which PIL keeps in modes of 32, too), else 255.

    Raises:
        ValueError: for pixels of no known range.
    """
    if picture.mode == "F":
        raise ValueError("floating-point pixels have no known range; 8 or 16 bits have")
    if not picture.mode.startswith("I"):
        return 255
    low, high = picture.getextrema()
    if low < 0 or high > 65535:
        raise ValueError(f"pixels from {low} to {high} are not those of a picture of 16 bits")
    return 65535


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


def write_image(image: Tensor, path: Path) -> None:
    """Write ``(1, C, H, W)`` in [0, 1], C 1 or 3, with 8 bits; the whole file or none.

    Raises:
        DataError: if the file's name says no format that PIL writes, or it cannot be written.
    """
    levels = (image[0].clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    form = Image.registered_extensions().get(path.suffix.lower())
    if form is None:
        raise DataError(f"{path} has no ending of a picture, such as .png")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            Image.fromarray(levels[..., 0] if levels.shape[2] == 1 else levels).save(temporary, format=form)
    except OSError as error:
        raise DataError(f"{path} cannot be written: {error.strerror or error}") from None
