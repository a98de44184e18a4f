"""How long a picture takes, beside the dense filter in its best and its common forms, in one run."""

from __future__ import annotations

import importlib.util
import itertools
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from metric_zoo.benchmarks.kernels.lowrank import LowRank
from metric_zoo.benchmarks.kernels.quality import filter_by_transform
from metric_zoo.benchmarks.kernels.varying import Effect
from metric_zoo.sparse import FilterBank, SparseKernelComplex
from metric_zoo.sparse.targets import get_target
from metric_zoo.timing import alternate, quartiles

Filter = Callable[[np.ndarray], np.ndarray]
"""Of a picture ``(H, W)``."""
SIZES = ((512, 512), (1080, 1920))
"""Height and width, one channel."""
TARGET = "star"
_FITS = ((12, 4), (24, 4), (32, 4), (8, 6))
_PATIENCE = 60.0
_ROWS = 8
"""Of the picture that a dense kernel per pixel is timed on, from a third on: all would take seconds."""
RANKS = (1, 2, 3)
_PIECE = 240
"""Pixels of which windows and kernels stay in the cache: six to eight times as fast as all at once."""
PER_PIXEL, BLENDED = "dense kernel per pixel", "dense basis, blended"
_OPENCV = importlib.util.find_spec("cv2") is not None


def time_filters(repeats: int, steps: int) -> list[dict[str, Any]]:
    """Milliseconds of one kernel of 49 x 49 at `SIZES`, float32, on all threads: lower quartile, median, upper.

    Args:
        repeats: of each, alternating.
        steps: of the fits.
    """
    kernel = get_target(TARGET)
    fits = {f"{n}x{m}": SparseKernelComplex.fit(kernel, n, m, steps=steps) for n, m in _FITS}
    rows = []
    for height, width in SIZES:
        image = torch.rand(1, 1, height, width, generator=torch.Generator().manual_seed(0))
        functions: dict[str, Callable[[], object]] = {name: partial(fit.apply, image) for name, fit in fits.items()}
        functions |= {f"low rank {rank}": partial(LowRank.fit(kernel, rank).apply, image) for rank in RANKS}
        functions |= dense_filters(image, kernel)
        seconds = alternate(functions, repeats, torch.device("cpu"), _PATIENCE)
        rows += [
            {"height": height, "width": width, "method": name, "milliseconds": [1e3 * q for q in quartiles(values)]}
            for name, values in seconds.items()
        ]
    return rows


def dense_filters(image: Tensor, kernel: Tensor) -> dict[str, Callable[[], object]]:
    """The dense kernel: directly, by the transform, and by OpenCV's ways where it is installed."""
    radius, plain = kernel.shape[-1] // 2, image[0, 0].numpy()

    def direct() -> Tensor:
        return F.conv2d(F.pad(image, (radius,) * 4, mode="replicate"), kernel[None, None])

    found: dict[str, Callable[[], object]] = {"dense, direct (torch)": direct}
    found["dense, FFT (scipy)"] = partial(filter_by_transform, plain, kernel.numpy())
    if _OPENCV:
        found["dense, DFT (OpenCV filter2D)"] = partial(_by_opencv, plain, kernel.numpy())
        found |= {
            f"low rank {r} (OpenCV sepFilter2D)": partial(separable, plain, LowRank.fit(kernel, r)) for r in RANKS
        }
    return found


def _by_opencv(plain: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    import cv2

    return cv2.filter2D(plain, -1, kernel, borderType=cv2.BORDER_REPLICATE)


def separable(plain: np.ndarray, fit: LowRank) -> np.ndarray:
    """A picture ``(H, W)`` filtered by a sum of separable kernels: by OpenCV where it is installed, else by torch."""
    if not _OPENCV:
        return fit.apply(torch.from_numpy(plain)[None, None].to(fit.rows))[0, 0].numpy()
    import cv2

    pairs = zip(fit.rows.numpy(), fit.columns.numpy(), strict=True)
    border = cv2.BORDER_REPLICATE
    first, *others = (cv2.sepFilter2D(plain, -1, row, column, borderType=border) for row, column in pairs)
    for other in others:
        first += other
    return first


def time_varying(effect: Effect, bank: FilterBank, repeats: int) -> list[dict[str, Any]]:
    """Milliseconds of one filter per pixel at 1920 x 1080: the bank, and what dense kernels on the same grid take.

    Those are blended for every pixel and laid over its window, which is timed on some rows and multiplied; or the whole
    picture is filtered by each, and the pictures are blended, which yields the same. So are low ranks of them."""
    height, width = SIZES[-1]
    image = torch.rand(1, 1, height, width, generator=torch.Generator().manual_seed(0))
    parameters = effect.map_of(height, width)[None].float()
    shares, kernels = bank.shares(parameters, "clamp")[0], basis_kernels(effect, bank)
    functions: dict[str, Callable[[], object]] = {
        f"{bank.basis.samples}x{bank.basis.layers}": partial(bank.apply, image, parameters, outside="clamp"),
        PER_PIXEL: _dense_per_pixel(image, shares, kernels),
        BLENDED: partial(blend_pictures, image[0, 0].numpy(), shares.numpy(), dense_basis(kernels)),
    }
    functions |= {
        f"low rank {rank}": partial(blend_pictures, image[0, 0].numpy(), shares.numpy(), low_rank_basis(kernels, rank))
        for rank in RANKS
    }
    seconds = alternate(functions, repeats, torch.device("cpu"), _PATIENCE)
    scale = {PER_PIXEL: height / _ROWS}
    return [
        {"method": name, "milliseconds": [1e3 * scale.get(name, 1.0) * q for q in quartiles(values)]}
        for name, values in seconds.items()
    ]


def basis_kernels(effect: Effect, bank: FilterBank) -> Tensor:
    """The dense kernels ``(filters, M, M)`` at the points of a bank's grid."""
    points = itertools.product(*(values.tolist() for values in bank.grid))
    return torch.stack([effect.kernel_at(*point) for point in points])


def blend_pictures(plain: np.ndarray, shares: np.ndarray, filters: Sequence[Filter]) -> np.ndarray:
    """A picture ``(H, W)`` filtered in every way, the results weighed by ``(filters, H, W)`` and added."""
    result = np.zeros_like(plain)
    for share, filtered in zip(shares, filters, strict=True):
        result += share * filtered(plain)
    return result


def dense_basis(kernels: Tensor) -> list[Filter]:
    """Each of ``(filters, M, M)`` by a transform: OpenCV's where it is installed, else scipy's."""
    filtered = _by_opencv if _OPENCV else filter_by_transform
    return [partial(filtered, kernel=kernel) for kernel in kernels.numpy()]


def low_rank_basis(kernels: Tensor, rank: int) -> list[Filter]:
    """Each of ``(filters, M, M)`` as a sum of so many separable ones."""
    return [partial(separable, fit=LowRank.fit(kernel, rank)) for kernel in kernels]


def _dense_per_pixel(image: Tensor, shares: Tensor, kernels: Tensor) -> Callable[[], Tensor]:
    """Some rows, in pieces; only the kernels that count anywhere in a piece are blended for it."""
    size, first, width = kernels.shape[-1], image.shape[-2] // 3, image.shape[-1]
    rows = F.pad(image, (size // 2,) * 4, mode="replicate")[0, 0, first : first + _ROWS + size - 1]
    own, flat = shares[:, first : first + _ROWS].permute(1, 2, 0).to(kernels).contiguous(), kernels.flatten(1)

    def filtered() -> Tensor:
        windows = rows.unfold(0, size, 1).unfold(1, size, 1)
        found = torch.empty(_ROWS, width)
        for row, start in itertools.product(range(_ROWS), range(0, width, _PIECE)):
            here = slice(start, start + _PIECE)
            part = own[row, here]
            used = part.any(0).nonzero()[:, 0]
            found[row, here] = torch.linalg.vecdot(part[:, used] @ flat[used], windows[row, here].flatten(1))
        return found.flatten()

    return filtered
