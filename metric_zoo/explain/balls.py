"""Unit balls and samples, drawn on the picture that they adapt to."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from metric_zoo.errors import MetricZooError
from metric_zoo.explain.figure import panels, save, show
from metric_zoo.explain.probe import Probe, probe, sampled_layers
from metric_zoo.geometry.implicit import hull_ball

_COLOURS = ("#ffb000", "#fe6100", "#dc267f", "#785ef0", "#648fff")


def draw_balls(
    model: nn.Module,
    input: Tensor,
    picture: Tensor,
    path: Path,
    layers: Sequence[str] | None = None,
    pixels: Sequence[tuple[float, float]] | None = None,
    grid: int = 6,
) -> None:
    """Draw, for each of some layers, the samples of some windows and the ball that they cover.

    The ball is the unit ball of a metric layer, scaled to its kernel; of another layer, the convex hull of its samples.

    Args:
        model: converted.
        input: ``(1, C, H, W)`` as the model wants it.
        picture: ``(1, 1 or 3, H, W)`` in [0, 1], the same image for the eye.
        path: of the figure; ``.png``, ``.svg`` or ``.pdf``.
        layers: names; None is the first and the last converted layer.
        pixels: (x, y) of the image where windows are wanted; the nearest ones are drawn.
        grid: without ``pixels``, so many windows a side, evenly spaced.

    Raises:
        MetricZooError: as `probe`, for pixels outside the image, or for sizes that differ.
    """
    _check(input, picture)
    names = list(layers) if layers else _ends(list(sampled_layers(model)))
    figure, axes = panels(1, len(names))
    for place, name in zip(axes[0], names, strict=True):
        found = probe(model, input, name)
        show(place, picture, f"{name}, {found.kind}", faint=0.7)
        for number, (row, column) in enumerate(_windows(found, _wanted(input, pixels, grid))):
            _draw(place, found, row, column, _COLOURS[number % len(_COLOURS)])
    save(figure, path)


def _check(input: Tensor, picture: Tensor) -> None:
    if picture.shape[-2:] != input.shape[-2:] or picture.dim() != 4:
        raise MetricZooError(f"picture has shape {tuple(picture.shape)}, the input {tuple(input.shape)}")


def _ends(names: list[str]) -> list[str]:
    return list(dict.fromkeys((names[0], names[-1])))


def _wanted(input: Tensor, pixels: Sequence[tuple[float, float]] | None, grid: int) -> list[tuple[float, float]]:
    height, width = input.shape[-2:]
    if pixels is None:
        steps = (np.arange(grid) + 0.5) / grid
        return [(x * width - 0.5, y * height - 0.5) for y in steps for x in steps]
    outside = [(x, y) for x, y in pixels if not (0 <= x < width and 0 <= y < height)]
    if outside:
        raise MetricZooError(f"pixel {outside[0]} lies outside the image of {width} x {height}")
    return list(pixels)


def _windows(found: Probe, pixels: Sequence[tuple[float, float]]) -> list[tuple[int, int]]:
    """Rows and columns of the windows whose centres are nearest, each once."""
    width = found.centres.shape[-1]
    nearest = []
    for pixel in pixels:
        distance = (found.centres - torch.tensor(pixel, dtype=torch.float64)[:, None, None]).square().sum(0)
        nearest.append(divmod(int(distance.argmin()), width))
    return list(dict.fromkeys(nearest))


def _draw(axes: Any, found: Probe, row: int, column: int, colour: str) -> None:
    centre = found.centres[:, row, column].numpy()
    for group, samples in enumerate(found.samples[..., row, column].double().cpu()):
        outline = _outline(found, samples, group, row, column)
        if outline is not None:
            axes.fill(*(centre + outline).T, facecolor=colour, edgecolor=colour, alpha=0.35, linewidth=1)
        axes.plot(*(centre + samples.numpy()).T, ".", color=colour, markersize=2)
    axes.plot(*centre, "+", color=colour, markersize=4)


def _outline(found: Probe, samples: Tensor, group: int, row: int, column: int) -> np.ndarray | None:
    if found.own:
        return found.metric.unit_ball(64)[0, group, :, :, row, column].double().cpu().numpy() * found.reach
    try:
        return hull_ball(samples)
    except MetricZooError:  # samples in one line
        return None
