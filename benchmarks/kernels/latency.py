"""How long a picture takes, beside the dense filter in its best and its common forms, in one run."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import scipy.fft
import scipy.signal
import torch
import torch.nn.functional as F
from torch import Tensor

from metric_zoo.benchmarks.kernels.lowrank import LowRank
from metric_zoo.benchmarks.kernels.varying import Effect
from metric_zoo.benchmarks.operators.timing import alternate, quartiles
from metric_zoo.sparse import FilterBank, SparseKernelComplex
from metric_zoo.sparse.targets import get_target

SIZES = ((512, 512), (1080, 1920))
"""Height and width, one channel."""
TARGET = "star"
_FITS = ((12, 4), (24, 4), (32, 4), (8, 6))
_PATIENCE = 60.0
_ROWS = 8
"""Of the picture that the dense filters of every pixel are timed on, in the middle: all of it would take minutes."""


def time_filters(repeats: int) -> list[dict[str, Any]]:
    """Milliseconds of one kernel of 49 x 49 at `SIZES`, float32, on all threads: lower quartile, median, upper."""
    kernel = get_target(TARGET)
    fits = {f"{n}x{m}": SparseKernelComplex.fit(kernel, n, m, steps=200) for n, m in _FITS}
    rows = []
    for height, width in SIZES:
        image = torch.rand(1, 1, height, width, generator=torch.Generator().manual_seed(0))
        functions: dict[str, Callable[[], object]] = {name: partial(fit.apply, image) for name, fit in fits.items()}
        functions |= {f"low rank {rank}": partial(LowRank.fit(kernel, rank).apply, image) for rank in (1, 2, 3)}
        functions |= dense_filters(image, kernel)
        seconds = alternate(functions, repeats, torch.device("cpu"), _PATIENCE)
        rows += [
            {"height": height, "width": width, "method": name, "milliseconds": [1e3 * q for q in quartiles(values)]}
            for name, values in seconds.items()
        ]
    return rows


def dense_filters(image: Tensor, kernel: Tensor) -> dict[str, Callable[[], object]]:
    """The dense kernel: directly, by the transform, and by OpenCV's ways where it is installed."""
    radius = kernel.shape[-1] // 2
    plain, turned = image[0, 0].numpy(), np.ascontiguousarray(kernel.numpy()[::-1, ::-1])

    def direct() -> Tensor:
        return F.conv2d(F.pad(image, (radius,) * 4, mode="replicate"), kernel[None, None])

    def transform() -> np.ndarray:
        with scipy.fft.set_workers(torch.get_num_threads()):
            return scipy.signal.fftconvolve(np.pad(plain, radius, mode="edge"), turned, mode="valid")

    found: dict[str, Callable[[], object]] = {"dense, direct (torch)": direct, "dense, FFT (scipy)": transform}
    try:
        import cv2
    except ImportError:
        return found
    one = LowRank.fit(kernel, 1)
    row, column = one.rows[0].numpy(), one.columns[0].numpy()
    border = {"borderType": cv2.BORDER_REPLICATE}
    found["dense, DFT (OpenCV filter2D)"] = partial(cv2.filter2D, plain, -1, kernel.numpy(), **border)
    found["low rank 1 (OpenCV sepFilter2D)"] = partial(cv2.sepFilter2D, plain, -1, row, column, **border)
    return found


def time_varying(effect: Effect, bank: FilterBank, repeats: int) -> list[dict[str, Any]]:
    """Milliseconds of one filter per pixel at 1920 x 1080: the bank, and dense kernels blended for every pixel between
    those of the same grid, which are timed on some rows and multiplied."""
    height, width = SIZES[-1]
    image = torch.rand(1, 1, height, width, generator=torch.Generator().manual_seed(0))
    parameters = effect.map_of(height, width)[None].float()
    functions = {bank_name(bank): partial(bank.apply, image, parameters, outside="clamp")}
    functions["dense kernel per pixel"] = _dense_per_pixel(effect, bank, image, parameters)
    seconds = alternate(functions, repeats, torch.device("cpu"), _PATIENCE)
    scale = {"dense kernel per pixel": height / _ROWS}
    return [
        {"method": name, "milliseconds": [1e3 * scale.get(name, 1.0) * q for q in quartiles(values)]}
        for name, values in seconds.items()
    ]


def bank_name(bank: FilterBank) -> str:
    """Such as ``24x4``."""
    return f"{bank.basis.samples}x{bank.basis.layers}"


def _dense_per_pixel(effect: Effect, bank: FilterBank, image: Tensor, parameters: Tensor) -> Callable[[], object]:
    points = itertools.product(*(values.tolist() for values in bank.grid))
    kernels = torch.stack([effect.kernel_at(*point).flatten() for point in points])
    size = round(kernels.shape[1] ** 0.5)
    first = image.shape[-2] // 3
    rows = F.pad(image, (size // 2,) * 4, mode="replicate")[0, 0, first : first + _ROWS + size - 1]
    shares = bank.shares(parameters[:, :, first : first + _ROWS], "clamp")[0].flatten(1).T.to(kernels)

    def filtered() -> Tensor:
        windows = rows.unfold(0, size, 1).unfold(1, size, 1).flatten(0, 1).flatten(1)
        return ((shares @ kernels) * windows).sum(1)

    return filtered
