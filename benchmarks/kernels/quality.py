"""How near a filtered picture comes to that of the dense kernel."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import scipy.fft
import scipy.signal
import torch
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

from metric_zoo.benchmarks.data.noisy import embedded
from metric_zoo.errors import DataError
from metric_zoo.images import in_channels
from metric_zoo.sparse.render import resize

PICTURES = ("camera", "astronaut", "coffee", "chelsea")
"""Of scikit-image's: photographs, of 300 x 451 to 512 x 512 pixels."""


def pictures() -> dict[str, Tensor]:
    """The test pictures, grey, ``(H, W)`` float64 in [0, 1], by name.

    Raises:
        DataError: without scikit-image.
    """
    return {name: in_channels(embedded(name), 1)[0].double() for name in PICTURES}


def dense_filter(picture: Tensor, kernel: Tensor) -> Tensor:
    """The truth, in float64: ``(H, W)`` correlated with ``(M, M)``, the border repeated outside."""
    return torch.from_numpy(filter_by_transform(picture.numpy(), kernel.double().numpy()))


def filter_by_transform(picture: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """``(H, W)`` correlated with ``(M, M)`` through scipy's Fourier transform, in their dtype."""
    padded = np.pad(picture, kernel.shape[-1] // 2, mode="edge")
    with scipy.fft.set_workers(torch.get_num_threads()):
        return scipy.signal.fftconvolve(padded, kernel[::-1, ::-1], mode="valid")


def kernel_error(kernel: Tensor, target: Tensor) -> float:
    """The 2-norm of the difference as a share of the target's, on a window that holds both."""
    size = max(kernel.shape[-1], target.shape[-1])
    dense = resize(target.double(), size)
    return ((resize(kernel.double(), size) - dense).norm() / dense.norm()).item()


def compare(found: Tensor, truth: Tensor) -> dict[str, float]:
    """PSNR in dB for a range of 1, SSIM, and mean FLIP (low dynamic range) of ``(H, W)`` pictures.

    Raises:
        DataError: without flip-evaluator.
    """
    found, truth = found.double(), truth.double()
    ssim = structural_similarity_index_measure(found[None, None], truth[None, None], data_range=1.0)
    assert isinstance(ssim, Tensor), "the mean alone"
    return {"psnr": psnr(found, truth), "ssim": ssim.item(), "flip": _flip(found, truth)}


def psnr(found: Tensor, truth: Tensor) -> float:
    """In dB, for a range of 1."""
    return -10 * math.log10(max((found - truth).square().mean().item(), 1e-30))


def mean_of(rows: list[dict[str, float]]) -> dict[str, Any]:
    """The mean of every figure."""
    return {name: sum(row[name] for row in rows) / len(rows) for name in rows[0]}


def _flip(found: Tensor, truth: Tensor) -> float:
    try:
        import flip_evaluator
    except ImportError:
        raise DataError("FLIP needs flip-evaluator: pip install 'metric-zoo[kernels]'") from None
    reference, test = (
        picture.clamp(0, 1).float()[..., None].expand(-1, -1, 3).contiguous().numpy() for picture in (truth, found)
    )
    return float(flip_evaluator.evaluate(reference, test, "LDR")[1])
