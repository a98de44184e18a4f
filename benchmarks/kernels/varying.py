"""Three filters that change from pixel to pixel: what they do to a photograph, and the truth beside it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from metric_zoo.benchmarks.kernels.quality import dense_filter
from metric_zoo.sparse.targets import normalized

LEVELS = 48
"""Values of a parameter in a map, so that the truth needs a dense filter for each and not for each pixel."""
_FINE = 8
_SIZE = 49


@dataclass(frozen=True)
class Effect:
    """A family of kernels, where its basis lies, and which kernel every pixel has.

    Attributes:
        kernel_at: the dense kernel ``(49, 49)`` for values of the parameters.
        grid: the values at which the basis is fitted, of one or two parameters.
        map_of: ``(D, H, W)`` parameters for a picture's height and width.
        samples: of each of four layers.
    """

    kernel_at: Callable[..., Tensor]
    grid: Sequence[Sequence[float]]
    map_of: Callable[[int, int], Tensor]
    samples: int


def ellipse(along: float, across: float, angle: float) -> Tensor:
    """A filled ellipse of these half axes in pixels, the first turned by ``angle`` from the x axis towards y."""
    x, y = _turned(angle)
    return _mean(((x / along).square() + (y / across).square() <= 1).double())


def streak(half: float, angle: float, width: float = 1.5) -> Tensor:
    """A bar of this half length and width, in pixels, turned as an `ellipse`."""
    x, y = _turned(angle)
    return _mean(((x.abs() <= half) & (y.abs() <= width / 2)).double())


def _turned(angle: float) -> tuple[Tensor, Tensor]:
    places = (torch.arange(_SIZE * _FINE, dtype=torch.float64) + 0.5) / _FINE - _SIZE / 2
    y, x = torch.meshgrid(places, places, indexing="ij")
    return x * math.cos(angle) + y * math.sin(angle), y * math.cos(angle) - x * math.sin(angle)


def _mean(fine: Tensor) -> Tensor:
    return normalized(fine.view(_SIZE, _FINE, _SIZE, _FINE).mean((1, 3)))


def _levels(values: Tensor, low: float, high: float) -> Tensor:
    """The nearest of `LEVELS` values from ``low`` to ``high``."""
    step = (high - low) / (LEVELS - 1)
    return low + ((values.clamp(low, high) - low) / step).round() * step


def _from_middle(height: int, width: int) -> tuple[Tensor, Tensor]:
    """Distance from the middle, 1 in the corners, and angle in [0, pi)."""
    y, x = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
    y, x = y.double() * height, x.double() * width
    return y.hypot(x) / math.hypot(height, width), torch.atan2(y, x) % math.pi


_SHARP, _BLURRED = 0.5, 24.0


def _depth(height: int, width: int) -> Tensor:
    """Sharp in the middle row, a disk of 24 pixels' radius above and below."""
    away = torch.linspace(-1, 1, height, dtype=torch.float64).abs()[:, None].expand(-1, width)
    return _levels(_SHARP + (_BLURRED - _SHARP) * away, _SHARP, _BLURRED)[None]


def _around(least: float, most: float, turn: float) -> Callable[[int, int], Tensor]:
    """Growing from the middle outwards, along the circle (``turn`` pi / 2) or away from it (0)."""

    def map_of(height: int, width: int) -> Tensor:
        distance, angle = _from_middle(height, width)
        size = _levels(least + (most - least) * distance, least, most)
        return torch.stack((size, _levels((angle + turn) % math.pi, 0, math.pi)))

    return map_of


def _steps(low: float, high: float, count: int) -> list[float]:
    return [low + (high - low) * i / (count - 1) for i in range(count)]


def _ratios(low: float, high: float, count: int) -> list[float]:
    return [low * (high / low) ** (i / (count - 1)) for i in range(count)]


EFFECTS = {
    "tilt-shift": Effect(
        lambda radius: ellipse(radius, radius, 0.0), [_ratios(_SHARP, _BLURRED, 9)], _depth, samples=24
    ),
    "rotational bokeh": Effect(
        lambda size, angle: ellipse(size, 0.45 * size, angle),
        [_ratios(2, 20, 5), _steps(0, math.pi, 13)],
        _around(2, 20, math.pi / 2),
        samples=32,
    ),
    "radial motion": Effect(streak, [_ratios(1, 20, 6), _steps(0, math.pi, 17)], _around(1, 20, 0.0), samples=32),
}


def truth(picture: Tensor, effect: Effect, parameters: Tensor) -> Tensor:
    """Every pixel of ``(H, W)`` filtered densely by its own kernel, in float64."""
    values, which = parameters.flatten(1).T.unique(dim=0, return_inverse=True)
    result = torch.empty_like(picture).flatten()
    for index, point in enumerate(values.tolist()):
        here = which == index
        result[here] = _filtered_at(picture, effect.kernel_at(*point), here)
    return result.view_as(picture)


def _filtered_at(picture: Tensor, kernel: Tensor, here: Tensor) -> Tensor:
    """The dense filter's output at some pixels: by windows where they are few, else by filtering all."""
    if here.sum() > 2000:
        return dense_filter(picture, kernel).flatten()[here]
    radius = kernel.shape[-1] // 2
    padded = torch.nn.functional.pad(picture[None, None], (radius,) * 4, mode="replicate")[0, 0]
    rows, columns = (torch.nonzero(here)[:, 0] // picture.shape[1], torch.nonzero(here)[:, 0] % picture.shape[1])
    windows = padded.unfold(0, 2 * radius + 1, 1).unfold(1, 2 * radius + 1, 1)[rows, columns]
    return (windows * kernel.double()).sum((1, 2))
