"""What all pictures share: an image under axes, and a file that is whole or not there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from torch import Tensor

from metric_zoo.errors import DataError
from metric_zoo.files import replacing

FORMATS = ("png", "svg", "pdf")


def panels(rows: int, columns: int, size: float = 3.2) -> tuple[Figure, Any]:
    """A figure and its axes ``[rows][columns]``, ``size`` inches a side each."""
    figure = Figure(figsize=(size * columns, (size + 0.25) * rows), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False)


def show(axes: Any, image: Tensor, title: str = "", faint: float = 1.0) -> None:
    """An image ``(1, C, H, W)`` in [0, 1], C 1 or 3, without ticks.

    Args:
        faint: opacity, for what is drawn upon it.
    """
    pixels = image[0].detach().cpu().float().clamp(0, 1).permute(1, 2, 0).numpy()
    axes.imshow(pixels[..., 0] if pixels.shape[2] == 1 else pixels, cmap="gray", vmin=0, vmax=1, alpha=faint)
    axes.set_xlim(-0.5, pixels.shape[1] - 0.5)
    axes.set_ylim(pixels.shape[0] - 0.5, -0.5)
    axes.set_title(title, fontsize=8)
    axes.set_axis_off()


def save(figure: Figure, path: Path) -> None:
    """Write a figure in the format that its file's name ends with; the same figure, the same bytes.

    Raises:
        DataError: for another ending than those of `FORMATS`.
    """
    form = path.suffix.lower().removeprefix(".")
    if form not in FORMATS:
        raise DataError(f"{path}: expected a name that ends with one of {', '.join('.' + name for name in FORMATS)}")
    path.parent.mkdir(parents=True, exist_ok=True)
    dateless = {"svg": {"Date": None, "Creator": None}, "pdf": {"CreationDate": None}, "png": {"Software": None}}
    with replacing(path) as temporary, matplotlib.rc_context({"svg.hashsalt": "metric-zoo"}):
        figure.savefig(temporary, format=form, dpi=110, metadata=dateless[form])
