"""The comparison of heuristic metrics: one image filtered by all of them (Metric Convolutions, ICCV 2025,
https://arxiv.org/abs/2406.05400)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor

from metric_zoo.errors import DataError
from metric_zoo.files import replacing
from metric_zoo.geometry.heuristics import AXES, metric_from_image
from metric_zoo.images import write_image
from metric_zoo.ops.ball_filter import BALLS, ball_filter
from metric_zoo.text import columns

TAUS = (0.0, 0.5, 0.9)
_SETTINGS = {"tangent": {"anisotropy": 100.0, "iota": 0.1}, "geodesic": {"anisotropy": 10.0, "iota": 1.0}}
_RADIUS = {"tangent": 1.0, "geodesic": 2.0}
"""The paper's: geodesic balls are drawn from tangent ones of twice the size."""


@dataclass(frozen=True)
class Filtered:
    """One of the comparison's images ``(1, C, H, W)``, how it was made, and its PSNR in dB if there is a clean one."""

    ball: str
    axis: str
    tau: float
    image: Tensor
    psnr: float | None

    @property
    def name(self) -> str:
        """``tangent-grad_orth-0.5``"""
        return f"{self.ball}-{self.axis}-{self.tau:g}"


def compare_filters(image: Tensor, out: Path, clean: Tensor | None = None, kernel_size: int = 11) -> str:
    """Filter an image over tangent and geodesic balls, long along the gradient or along the edge, for three drifts.

    Args:
        image: ``(1, C, H, W)`` in [0, 1]; the metrics follow from its own gradients.
        out: folder of every filtered image and of ``comparison.png``.
        clean: the image without noise; each result's PSNR against it is told.
        kernel_size: odd; ``kernel_size ** 2`` samples of every ball.

    Returns:
        A table.

    Raises:
        MetricZooError: for an image that is smaller than the kernel, not finite, or of another size than ``clean``.
    """
    if min(image.shape[-2:]) < kernel_size:
        raise DataError(
            f"image of {image.shape[-1]} x {image.shape[-2]} pixels, smaller than the kernel of {kernel_size}"
        )
    if clean is not None and clean.shape != image.shape:
        raise DataError(f"clean image has shape {tuple(clean.shape[1:])}, the image {tuple(image.shape[1:])}")
    results = [_filtered(image, clean, kernel_size, ball, axis, tau) for ball in BALLS for axis in AXES for tau in TAUS]
    for result in results:
        write_image(result.image, out / f"{result.name}.png")
    _draw(image, clean, results, out / "comparison.png")
    rows = [["ball", "axis", "tau", "PSNR, dB"]]
    if clean is not None:
        rows.append(["(none)", "", "", f"{psnr(image, clean):.2f}"])
    for result in results:
        told = "" if result.psnr is None else f"{result.psnr:.2f}"
        rows.append([result.ball, result.axis, f"{result.tau:g}", told])
    return columns(rows)


def psnr(image: Tensor, clean: Tensor) -> float:
    """Peak signal-to-noise ratio in dB, of images in [0, 1]."""
    return (-10 * torch.log10((image.clamp(0, 1) - clean).square().mean())).item()


def _filtered(image: Tensor, clean: Tensor | None, kernel_size: int, ball: str, axis: str, tau: float) -> Filtered:
    metric = metric_from_image(image, axis=axis, tau=tau, drift=axis, **_SETTINGS[ball])
    result = ball_filter(image, metric, kernel_size, ball=ball, radius=_RADIUS[ball])
    return Filtered(ball, axis, tau, result, None if clean is None else psnr(result, clean))


def _draw(image: Tensor, clean: Tensor | None, results: list[Filtered], path: Path) -> None:
    """A row for every ball and axis, a column for every drift; the image itself at the left."""
    rows = len(results) // len(TAUS)
    figure = Figure(figsize=(2.6 * (1 + len(TAUS)), 2.75 * rows), layout="constrained")
    axes = figure.subplots(rows, 1 + len(TAUS), squeeze=False)
    for row in range(rows):
        told = "" if clean is None else f", {psnr(image, clean):.1f} dB"
        _show(axes[row, 0], image, f"image{told}" if row == 0 else "")
        axes[row, 0].set_visible(row == 0)
        for column, result in enumerate(results[row * len(TAUS) : (row + 1) * len(TAUS)], 1):
            told = "" if result.psnr is None else f", {result.psnr:.1f} dB"
            _show(axes[row, column], result.image, f"{result.ball}, {result.axis}, τ = {result.tau:g}{told}")
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)


def _show(axes, image: Tensor, title: str) -> None:
    pixels = image[0].clamp(0, 1).permute(1, 2, 0).numpy()
    axes.imshow(pixels[..., 0] if pixels.shape[2] == 1 else pixels, cmap="gray", vmin=0, vmax=1)
    axes.set_title(title, fontsize=8)
    axes.set_axis_off()
