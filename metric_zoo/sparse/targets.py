"""Kernels to approximate: ``(size, size)`` float32, size odd, not negative, with the sum 1."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from metric_zoo.errors import DataError, MetricZooError, suggest
from metric_zoo.images import in_channels, read_image

SIZE = 49
_FINE = 8
"""Subpixels a side of which a shape's pixel is the mean."""
_FONT = "DejaVu Sans"


def gaussian(sigma: float, size: int = SIZE) -> Tensor:
    """A Gaussian, sampled at the pixels; ``sigma`` in pixels.

    Raises:
        MetricZooError: for an even size, or a sigma that is not positive.
    """
    _check_size(size)
    if not sigma > 0:
        raise MetricZooError(f"sigma={sigma!r}: expected a positive number of pixels")
    places = torch.arange(size, dtype=torch.float64) - size // 2
    line = (-(places.square()) / (2 * sigma**2)).exp()
    return normalized(line[:, None] * line)


def disk(size: int = SIZE, radius: float | None = None) -> Tensor:
    """A disk; its ``radius`` in pixels, None is half of ``size``.

    Raises:
        MetricZooError: for an even size, or a radius that is not positive or goes beyond the window.
    """
    return _silhouette(lambda x, y: x.hypot(y) <= 1, size, radius)


def ring(size: int = SIZE, inner: float = 0.6) -> Tensor:
    """A ring; ``inner`` is the ratio of its radii."""
    return _silhouette(lambda x, y: (x.hypot(y) <= 1) & (x.hypot(y) >= inner), size)


def square(size: int = SIZE) -> Tensor:
    """All of the window, but for half a pixel."""
    return _silhouette(lambda x, y: (x.abs() <= 1) & (y.abs() <= 1), size)


def hexagon(size: int = SIZE) -> Tensor:
    """Six sides, a corner at the left and one at the right."""
    return _polygon([(math.cos(math.pi * i / 3), math.sin(math.pi * i / 3)) for i in range(6)], size)


def heart(size: int = SIZE) -> Tensor:
    """The curve (x^2 + y^2 - 1)^3 = x^2 y^3, its point below."""
    return _silhouette(lambda x, y: _heart(1.25 * x, 0.1 - 1.25 * y) <= 0, size)


def _heart(x: Tensor, y: Tensor) -> Tensor:
    return (x.square() + y.square() - 1) ** 3 - x.square() * y**3


def star(size: int = SIZE, inner: float = 0.4) -> Tensor:
    """Four points; ``inner`` is the ratio of its radii."""
    radii, angles = (1.0, inner) * 4, [math.pi / 4 * i - math.pi / 2 for i in range(8)]
    return _polygon([(r * math.cos(a), r * math.sin(a)) for r, a in zip(radii, angles, strict=True)], size)


def ampersand(size: int = SIZE) -> Tensor:
    """The character of DejaVu Sans."""
    return _glyph("&", size)


def knight(size: int = SIZE) -> Tensor:
    """The silhouette of a chess knight, a character of DejaVu Sans."""
    return _glyph("\u265e", size)


def horse(size: int = SIZE) -> Tensor:
    """The silhouette of a horse, a picture of scikit-image.

    Raises:
        DataError: without scikit-image.
    """
    try:
        from skimage import data
    except ImportError:
        raise DataError("the silhouette of a horse needs scikit-image: pip install 'metric-zoo[denoising]'") from None
    return from_tensor(1 - torch.from_numpy(np.asarray(data.horse(), dtype=np.float32)), size)


def coma(size: int = SIZE, waves: float = 1.0) -> Tensor:
    """Point spread of a round aperture with Zernike's coma, :math:`Z_3^{-1} = (3r^2 - 2) y`, in wavelengths."""
    return _point_spread(lambda r, x, y: waves * (3 * r.square() - 2) * y, size)


def spherical(size: int = SIZE, waves: float = 1.0) -> Tensor:
    """Point spread with Zernike's spherical aberration, :math:`Z_4^0 = 6r^4 - 6r^2 + 1`, in wavelengths."""
    return _point_spread(lambda r, x, y: waves * (6 * r**4 - 6 * r.square() + 1), size)


TARGETS: dict[str, Callable[[], Tensor]] = {
    **{f"gaussian-{sigma}": (lambda sigma=sigma: gaussian(sigma)) for sigma in (5, 7, 9, 11)},
    **{function.__name__: function for function in (disk, ring, square, hexagon, heart, star, ampersand)},
    **{function.__name__: function for function in (knight, horse, coma, spherical)},
}
"""By name, 49 x 49: Gaussians are named after their sigma in pixels."""


def get_target(name: str) -> Tensor:
    """One of `TARGETS`.

    Raises:
        MetricZooError: for an unknown name, with the nearest one.
    """
    if name not in TARGETS:
        raise MetricZooError(f"unknown target {name!r}{suggest(name, TARGETS)}; known: {', '.join(TARGETS)}")
    return TARGETS[name]()


def from_image(path: str | os.PathLike[str], size: int = SIZE) -> Tensor:
    """A kernel from a picture: white counts, black does not.

    Raises:
        DataError: if the file cannot be read as a picture.
        MetricZooError: if it is black.
    """
    return from_tensor(in_channels(read_image(Path(path)), 1)[0, 0], size)


def from_tensor(image: Tensor, size: int = SIZE) -> Tensor:
    """A kernel from ``(H, W)`` values: scaled, as a whole, into the middle of ``(size, size)``.

    Raises:
        MetricZooError: for values that are negative, not finite or all zero.
    """
    if (
        image.dim() != 2
        or not image.numel()
        or not bool(image.isfinite().all())
        or image.amin() < 0
        or image.amax() == 0
    ):
        raise MetricZooError(
            f"a picture {tuple(image.shape)} becomes no kernel: expected (H, W), finite, not negative, not all 0"
        )
    _check_size(size)
    height, width = (max(1, round(side * size / max(image.shape))) for side in image.shape)
    scaled = torch.nn.functional.interpolate(
        image[None, None].float(), (height, width), mode="bilinear", antialias=True, align_corners=False
    )[0, 0]
    kernel = torch.zeros(size, size)
    top, left = (size - height) // 2, (size - width) // 2
    kernel[top : top + height, left : left + width] = scaled.clamp_min(0)
    return normalized(kernel)


def _check_size(size: int) -> None:
    if not isinstance(size, int) or size < 1 or size % 2 == 0:
        raise MetricZooError(f"size={size!r}: expected an odd number of pixels")


def normalized(kernel: Tensor) -> Tensor:
    """With the sum 1, float32.

    Raises:
        MetricZooError: for kernels of even size, empty ones, and such without values.
    """
    total = kernel.double().sum()
    if kernel.shape[-1] % 2 == 0:
        raise MetricZooError(f"a kernel of {kernel.shape[-1]} pixels a side has no pixel in its middle: make it odd")
    if not (total.isfinite() and total > 0):
        raise MetricZooError(f"a kernel of these sizes has the sum {total.item()}: nothing is left of it")
    return (kernel.double() / total).float()


def _silhouette(inside: Callable[[Tensor, Tensor], Tensor], size: int, radius: float | None = None) -> Tensor:
    """What is ``inside``, a function of x and y that are 1 at ``radius`` pixels from the middle."""
    _check_size(size)
    radius = size / 2 - 0.5 if radius is None else radius
    if not 0 < radius <= size / 2:
        raise MetricZooError(f"radius={radius!r}: expected more than 0, and at most half of the window's {size} pixels")
    places = ((torch.arange(size * _FINE, dtype=torch.float64) + 0.5) / _FINE - size / 2) / radius
    y, x = torch.meshgrid(places, places, indexing="ij")
    return normalized(inside(x, y).double().view(size, _FINE, size, _FINE).mean((1, 3)))


def _polygon(corners: list[tuple[float, float]], size: int) -> Tensor:
    from matplotlib.path import Path as Outline

    outline = Outline(np.asarray(corners))

    def inside(x: Tensor, y: Tensor) -> Tensor:
        points = torch.stack((x.flatten(), y.flatten()), dim=-1).numpy()
        return torch.from_numpy(outline.contains_points(points)).view_as(x)

    return _silhouette(inside, size)


def _glyph(character: str, size: int) -> Tensor:
    from matplotlib.font_manager import FontProperties, findfont
    from PIL import Image, ImageDraw, ImageFont

    _check_size(size)
    font = ImageFont.truetype(findfont(FontProperties(family=_FONT)), size * _FINE)
    left, top, right, bottom = map(int, font.getbbox(character))
    picture = Image.new("L", (right - left, bottom - top))
    ImageDraw.Draw(picture).text((-left, -top), character, fill=255, font=font)
    return from_tensor(torch.from_numpy(np.array(picture, dtype=np.float32)), size)


def _point_spread(phase: Callable[[Tensor, Tensor, Tensor], Tensor], size: int) -> Tensor:
    """The squared modulus of the Fourier transform of a pupil, sampled three times as finely as the pupil's width
    would do (an unaberrated spot is then about seven pixels wide)."""
    _check_size(size)
    fine = 4 * (size + 1)
    places = (torch.arange(fine, dtype=torch.float64) - fine // 2) / (fine // 6)
    y, x = torch.meshgrid(places, places, indexing="ij")
    radius = x.hypot(y)
    pupil = torch.where(radius <= 1, torch.polar(torch.ones_like(radius), 2 * math.pi * phase(radius, x, y)), 0)
    spread = torch.fft.fftshift(torch.fft.fft2(torch.fft.ifftshift(pupil))).abs().square()
    first = fine // 2 - size // 2
    return normalized(spread[first : first + size, first : first + size])
