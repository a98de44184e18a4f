"""What a fit minimises, of the difference between a kernel and the one that was wanted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from metric_zoo.errors import MetricZooError, suggest

EPSILON = 0.1
"""Of Charbonnier's loss, as a share of the wanted kernel's largest value."""
_POWER, _LOWEST = 0.1, 0.01
"""Of natural images: that of white noise at some 0.3 cycles a pixel; it levels off at 0.01 cycles a pixel."""


@dataclass(frozen=True)
class Loss:
    """A measure, and how fast to go with it.

    Attributes:
        of: differences ``(T, size, size)``, size odd, in units of each kernel's largest value, to one number.
        rate: at which Adam learns offsets, in half extents of the kernel.
    """

    of: Callable[[Tensor], Tensor]
    rate: float


def charbonnier(missed: Tensor) -> Tensor:
    r""":math:`\sum_u \sqrt{D(u)^2 + \varepsilon^2}` (DISK, ICLR 2026, https://arxiv.org/abs/2512.04556, image-free
    fitting)."""
    return (missed.square() + EPSILON**2).sqrt().sum()


def natural(missed: Tensor) -> Tensor:
    r"""Charbonnier's loss, and the squared error to be expected in a filtered photograph.

    .. math:: \sum_u \sqrt{D(u)^2 + \varepsilon^2} + \int \frac{0.1}{|f|^2 + 0.01^2} |\hat D(f)|^2 df

    The first counts all frequencies alike, but natural images have their power in the low ones: it falls as
    :math:`1 / |f|^2` (Field, J. Opt. Soc. Am. A 4, 1987); f is in cycles a pixel. No image is needed for it.
    """
    spectrum = torch.fft.rfft2(missed, norm="ortho")
    return charbonnier(missed) + (natural_power(missed) * (spectrum.real.square() + spectrum.imag.square())).sum()


def natural_power(canvas: Tensor, white: float = 0.0) -> Tensor:
    """Of the frequencies `rfft2` has for a canvas ``(*, size, size)``, size odd: ``(size, size // 2 + 1)``.

    Args:
        canvas: gives size, dtype and device.
        white: is added everywhere.
    """
    size, like = canvas.shape[-1], {"dtype": canvas.dtype, "device": canvas.device}
    rows, columns = torch.fft.fftfreq(size, **like)[:, None], torch.fft.rfftfreq(size, **like)
    power = white + _POWER / (rows.square() + columns.square() + _LOWEST**2)
    # All columns but the first stand for two.
    return torch.cat((power[:, :1], 2 * power[:, 1:]), dim=1)


LOSSES = {"natural": Loss(natural, rate=1 / 120), "charbonnier": Loss(charbonnier, rate=1 / 240)}


def loss_for(name: str | None, signed: bool) -> Loss:
    """One of `LOSSES`; without a name ``"natural"``, or ``"charbonnier"`` for kernels that may have negative values.

    Those have little or nothing in the low frequencies, and fit worse where these count: random ones end near zero.

    Raises:
        MetricZooError: for an unknown name.
    """
    if name is None:
        name = "charbonnier" if signed else "natural"
    if name not in LOSSES:
        raise MetricZooError(f"unknown loss {name!r}{suggest(str(name), LOSSES)}; known: {tuple(LOSSES)}")
    return LOSSES[name]
