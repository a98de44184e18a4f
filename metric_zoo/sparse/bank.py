"""Filters that change from pixel to pixel: a grid of sparse kernel complexes, blended."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from metric_zoo.errors import MetricZooError
from metric_zoo.geometry.precision import at_least_float32
from metric_zoo.ops.blended import blended_conv2d
from metric_zoo.ops.blending import multilinear, within
from metric_zoo.sparse.complex import SparseKernelComplex, cropped, load_tensors, padded_for, save_tensors
from metric_zoo.sparse.fit import STEPS
from metric_zoo.sparse.initialize import SPARSE

OUTSIDE = ("refuse", "clamp")


@dataclass(frozen=True, eq=False)
class FilterBank:
    r"""A basis of complexes at the points of a grid of one or two parameters, and every filter between them.

    .. math:: f(p) = \sum_k \alpha_k(p) f_k

    where the weights :math:`\alpha_k \ge 0` of a pixel are those of (multi)linear interpolation at its parameters and
    what is blended are offsets and weights, sample by sample (DISK, ICLR 2026, https://arxiv.org/abs/2512.04556,
    spatially varying filtering).

    Attributes:
        basis: complexes with offsets ``(*grid, L, N, 2)`` and weights ``(*grid, L, N)``.
        grid: one or two ascending 1-D tensors, the parameters' values.

    Raises:
        MetricZooError: if basis and grid do not fit together.
    """

    basis: SparseKernelComplex
    grid: tuple[Tensor, ...]

    def __post_init__(self) -> None:
        _check_grid(self.grid)
        shape = tuple(len(values) for values in self.grid)
        if tuple(self.basis.weights.shape[:-2]) != shape:
            raise MetricZooError(
                f"basis of {tuple(self.basis.weights.shape[:-2])} complexes, grid of {shape}: expected one or two "
                "parameters, and a complex for every point"
            )

    @classmethod
    def fit(
        cls,
        kernel_at: Callable[..., Tensor],
        grid: Sequence[Sequence[float]],
        samples: int = 24,
        layers: int = 4,
        init: str = SPARSE,
        steps: int = STEPS,
        *,
        warm_steps: int = 300,
        loss: str | None = None,
        seed: int = 0,
        signed: bool = False,
        progress: bool = False,
    ) -> FilterBank:
        """Fit a basis, neighbours from one another, so that a sample keeps its part in all of them.

        The complex in the middle of the grid is fitted first; along the first parameter both ways the next ones begin
        where their neighbours ended, and from these, along the second, all others. Those that are as many steps from
        the middle are fitted at once.

        Args:
            kernel_at: the kernel ``(M, M)`` for the values of the parameters.
            grid: one or two lists of them.
            samples, layers, init, steps, loss, seed, signed: as in `SparseKernelComplex.fit`, for the first.
            warm_steps: of every fit that begins at a neighbour's; more of them fit better and correspond less.
            progress: show a bar for every generation of fits.

        Raises:
            MetricZooError: as `SparseKernelComplex.fit`, if the grid is none, or for kernels of several sizes.
        """

        def fitted(targets: Tensor, start: SparseKernelComplex | None) -> SparseKernelComplex:
            options = {"samples": samples, "layers": layers, "loss": loss, "seed": seed, "signed": signed,
                       "progress": progress}  # fmt: skip
            if start is None:
                return SparseKernelComplex.fit(targets, init=init, steps=steps, **options)
            return SparseKernelComplex.fit(targets, init=start, steps=warm_steps, **options)

        return cls.grown(kernel_at, grid, fitted)

    @classmethod
    def grown(
        cls,
        kernel_at: Callable[..., Tensor],
        grid: Sequence[Sequence[float]],
        fit: Callable[[Tensor, SparseKernelComplex | None], SparseKernelComplex],
    ) -> FilterBank:
        """A basis by any method of fitting, every complex from its neighbour towards the middle of the grid.

        Args:
            kernel_at, grid: as in `fit`.
            fit: gives the complexes for targets ``(T, M, M)`` and as many to begin with, or None for the first; what
                is as many steps from the middle is fitted at once.

        Raises:
            MetricZooError: if the grid is none, or for kernels of several sizes.
        """
        axes = tuple(torch.tensor(list(values), dtype=torch.float64) for values in grid)
        _check_grid(axes)
        shape = tuple(map(len, axes))
        found: dict[tuple[int, ...], SparseKernelComplex] = {}
        size: tuple[int, ...] | None = None
        for points in _generations(shape):
            values = [[axis[i].item() for axis, i in zip(axes, point, strict=True)] for point in points]
            targets = _one_size([kernel_at(*each) for each in values], size)
            size = targets.shape[1:]
            start = _stacked([found[_towards(point, shape)] for point in points]) if found else None
            fits = fit(targets, start)
            found |= {point: fits[index] for index, point in enumerate(points)}
        every = _stacked([found[point] for point in itertools.product(*map(range, shape))])
        basis = (tensor.unflatten(0, shape) for tensor in (every.offsets, every.weights))
        return cls(SparseKernelComplex(*basis), axes)

    def to(self, *args, **kwargs) -> FilterBank:
        """The basis on another device, or in another dtype; the arguments of `torch.Tensor.to`."""
        return FilterBank(self.basis.to(*args, **kwargs), self.grid)

    def at(self, *parameters: float) -> SparseKernelComplex:
        """The filter for these values.

        Raises:
            MetricZooError: for values outside the grid, or another number of them.
        """
        if len(parameters) != len(self.grid):
            raise MetricZooError(f"{len(parameters)} parameters {parameters}: expected {len(self.grid)}")
        image = torch.tensor(parameters, dtype=torch.float64).view(1, -1, 1, 1)
        alpha = self.shares(image)[0, :, 0, 0].to(self.basis.weights)
        flat = (t.flatten(0, len(self.grid) - 1) for t in (self.basis.offsets, self.basis.weights))
        return SparseKernelComplex(*(torch.tensordot(alpha, tensor, 1) for tensor in flat))

    def apply(
        self, image: Tensor, parameters: Tensor, outside: str = "refuse", padding_mode: str = "replicate"
    ) -> Tensor:
        """Filter an image, every pixel by its own filter; differentiable in image, parameters and basis.

        A layer blends at its own pixel: where the parameters change over the extent of a kernel, what the layers amount
        to is not exactly the kernel of the pixel in the middle.

        Args:
            image: ``(B, C, H, W)``.
            parameters: ``(B or 1, D, H, W)``, D the number of parameters.
            outside: ``"clamp"`` takes values outside the grid as those at its border.
            padding_mode: of `PADDING_MODES`, for the image; the parameters go on as at the border.

        Returns:
            ``(B, C, H, W)``.

        Raises:
            MetricZooError: for parameters of another shape, not finite, or outside the grid.
        """
        coordinates = self._coordinates(parameters, outside)
        if parameters.shape[0] not in (1, image.shape[0]) or parameters.shape[-2:] != image.shape[-2:]:
            raise MetricZooError(
                f"parameters {tuple(parameters.shape)} for an image {tuple(image.shape)}: expected (B or 1, D, H, W)"
            )
        reach = self.basis.reach
        padded = padded_for(image, reach, padding_mode)
        coordinates = torch.nn.functional.pad(coordinates, (reach,) * 4, mode="replicate")
        for offsets, weights in zip(self.basis.offsets.unbind(-3), self.basis.weights.unbind(-2), strict=True):
            padded = blended_conv2d(padded, coordinates, offsets, weights)
        return cropped(padded, reach)

    def shares(self, parameters: Tensor, outside: str = "refuse") -> Tensor:
        """How much every filter of the basis counts at a pixel, ``(B, D, H, W) -> (B, filters, H, W)``; their sum is 1.

        Args:
            parameters, outside: as in `apply`.
        """
        return multilinear(self._coordinates(parameters, outside), tuple(map(len, self.grid)))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a file of safetensors, whole or not at all.

        Raises:
            MetricZooError: if it cannot be written.
        """
        grid = {f"grid_{axis}": values for axis, values in enumerate(self.grid)}
        save_tensors({"offsets": self.basis.offsets, "weights": self.basis.weights, **grid}, path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> FilterBank:
        """Read what `save` wrote.

        Raises:
            MetricZooError: if the file cannot be read or holds something else.
        """
        found = load_tensors(path, {"offsets", "weights", "grid_0"}, {"grid_1"})
        grid = tuple(found[name] for name in ("grid_0", "grid_1") if name in found)
        return cls(SparseKernelComplex(found["offsets"], found["weights"]), grid)

    def _coordinates(self, parameters: Tensor, outside: str) -> Tensor:
        """Parameters in steps of the grid, from 0 to its number of values less one; ``(B, D, H, W)``."""
        if outside not in OUTSIDE:
            raise MetricZooError(f"outside={outside!r}: expected one of {OUTSIDE}")
        if parameters.dim() != 4 or parameters.shape[1] != len(self.grid):
            raise MetricZooError(f"parameters {tuple(parameters.shape)}: expected {len(self.grid)} for every pixel")
        if not parameters.is_floating_point() or not parameters.numel():
            raise MetricZooError(
                f"parameters {tuple(parameters.shape)} of {parameters.dtype}: expected some, floating-point"
            )
        if not bool(parameters.isfinite().all()):
            raise MetricZooError(f"parameters hold {int((~parameters.isfinite()).sum())} values that are not finite")
        return torch.stack(
            [_steps(parameters[:, axis], values, axis, outside) for axis, values in enumerate(self.grid)], dim=1
        )


def _check_grid(grid: Sequence[Tensor]) -> None:
    if len(grid) not in (1, 2):
        raise MetricZooError(f"a grid of {len(grid)} parameters: expected one or two")
    for values in grid:
        ascending = values.dim() == 1 and bool(values.isfinite().all()) and bool((values.diff() > 0).all())
        if not ascending or len(values) < 2:
            raise MetricZooError(f"grid values {values.tolist()}: expected two or more, finite and ascending")


def _steps(values: Tensor, grid: Tensor, axis: int, outside: str) -> Tensor:
    values = at_least_float32(values)
    grid = grid.to(values)
    low, high = values.amin().item(), values.amax().item()
    if outside == "refuse" and (low < grid[0].item() or high > grid[-1].item()):
        raise MetricZooError(
            f"parameter {axis} goes from {low:.4g} to {high:.4g}, the grid from {grid[0].item():.4g} to "
            f"{grid[-1].item():.4g}: give outside='clamp' to take the nearest"
        )
    values = within(values, grid[0].item(), grid[-1].item())
    cell = (torch.bucketize(values.detach(), grid, right=True) - 1).clamp(0, len(grid) - 2)
    return cell + (values - grid[cell]) / (grid[cell + 1] - grid[cell])


def _one_size(kernels: list[Tensor], size: tuple[int, ...] | None) -> Tensor:
    sizes = {tuple(kernel.shape) for kernel in kernels} | ({tuple(size)} if size else set())
    if len(sizes) > 1:
        raise MetricZooError(f"kernel_at gives kernels of {sorted(sizes)}: expected one size")
    return torch.stack(kernels)


def _generations(shape: tuple[int, ...]) -> list[list[tuple[int, ...]]]:
    """The points of a grid by the number of steps from its middle."""
    found: dict[int, list[tuple[int, ...]]] = {}
    for point in itertools.product(*map(range, shape)):
        found.setdefault(sum(abs(i - size // 2) for i, size in zip(point, shape, strict=True)), []).append(point)
    return [found[steps] for steps in sorted(found)]


def _towards(point: tuple[int, ...], shape: tuple[int, ...]) -> tuple[int, ...]:
    """The neighbour that is a step nearer to the middle, along the last parameter in which they differ."""
    axis = max(axis for axis, size in enumerate(shape) if point[axis] != size // 2)
    step = 1 if shape[axis] // 2 > point[axis] else -1
    return (*point[:axis], point[axis] + step, *point[axis + 1 :])


def _stacked(complexes: Sequence[SparseKernelComplex]) -> SparseKernelComplex:
    return SparseKernelComplex(
        *(torch.stack([getattr(one, name) for one in complexes]) for name in ("offsets", "weights"))
    )
