"""Fit sparse kernel complexes to dense kernels through their impulse response."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from tqdm import tqdm

from metric_zoo.errors import MetricZooError
from metric_zoo.sparse.render import compose, layer_kernels, resize

STEPS = 1000
_END = 0.1
"""Learning rates fall to this share of themselves, linearly (DISK: from 1e-3 to 1e-4)."""
_OFFSET_RATE = 1 / 240
"""Of the target's half extent: 0.1 pixels for a kernel of 49."""
_WEIGHT_RATE = 0.05
"""Of a sample's initial weight."""
_CHARBONNIER = 0.1
"""Epsilon, of the target's largest value."""
_MARGIN = 12
"""Pixels that all layers together may grow beyond where they began."""


def check_target(target: Tensor, signed: bool = False) -> None:
    """Raise unless ``(T, M, M)`` are kernels that can be fitted.

    Raises:
        MetricZooError: if they are not square, of an even size, empty, not finite, or negative unless ``signed``.
    """
    shape = tuple(target.shape)
    if target.dim() != 3 or shape[1] != shape[2] or 0 in shape:
        raise MetricZooError(f"target has shape {shape[1:]}: expected a square kernel (M, M)")
    if shape[1] % 2 == 0:
        raise MetricZooError(f"target has {shape[1]} pixels a side: an even kernel has no pixel in its middle")
    if not target.is_floating_point():
        raise MetricZooError(f"target has dtype {target.dtype}: expected a floating-point type")
    if not bool(target.isfinite().all()):
        raise MetricZooError(f"target holds {int((~target.isfinite()).sum())} values that are not finite")
    least = target.amin().item()
    if least < 0 and not signed:
        raise MetricZooError(f"target has a negative value, {least:.3g}: give signed=True if that is meant")
    if not bool((target != 0).flatten(1).any(1).all()):
        raise MetricZooError("target is empty: all its values are zero")


def optimize(
    target: Tensor,
    offsets: Tensor,
    weights: Tensor,
    steps: int = STEPS,
    *,
    signed: bool = False,
    progress: bool = False,
    evaluated: Callable[[int, Tensor, Tensor], None] | None = None,
) -> tuple[Tensor, Tensor]:
    r"""Fit T complexes to T kernels at once, by Adam on the Charbonnier loss of their impulse responses.

    .. math:: \sum_u \sqrt{(K_1 * \dots * K_L - K_{target})^2(u) + \varepsilon^2}

    (DISK, ICLR 2026, image-free fitting). Kernels that are not ``signed`` keep their sum exactly: every layer's weights
    are divided by their sum while they are learned, without which the error of a fit is for the most part one of
    brightness. The response is computed as the product of the layers' spectra on a canvas that holds it whole.

    Args:
        target: ``(T, M, M)``; see `check_target`.
        offsets: ``(T, L, N, 2)``, where to begin.
        weights: ``(T, L, N)``.
        steps: of Adam.
        signed: whether values below zero may occur, in kernels and in sums.
        progress: show a bar.
        evaluated: called with the number of steps done, offsets and weights, after every step.

    Returns:
        Offsets and weights as given, fitted; the weights of all layers but the last sum to 1 unless ``signed``.
    """
    sums = target.abs().sum((-2, -1), keepdim=True)
    scale = sums / target.abs().amax((-2, -1), keepdim=True)
    limits = _limits(offsets, target.shape[-1])
    size = 2 * int(limits.sum(1).max().ceil().item() + offsets.shape[1]) + 1
    wanted = resize(target / sums, size) * scale
    offsets, weights = (t.detach().clone().requires_grad_() for t in (offsets, weights))
    rates = _OFFSET_RATE * (target.shape[-1] // 2), _WEIGHT_RATE * weights.detach().abs().mean().item()
    optimizer = torch.optim.Adam(
        [{"params": [tensor], "lr": rate} for tensor, rate in zip((offsets, weights), rates, strict=True)]
    )
    decay = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, _END, steps)

    centroid = centroids(target / sums)

    def constrained() -> tuple[Tensor, Tensor]:
        if signed:
            return offsets, weights
        shares = weights / weights.sum(-1, keepdim=True)
        missing = centroid - (shares[..., None] * offsets).sum((1, 2))
        return offsets + missing[:, None, None] / offsets.shape[1], shares

    for step in tqdm(range(1, steps + 1), "fitting", disable=not progress, leave=False):
        optimizer.zero_grad()
        with torch.enable_grad():
            missed = compose(layer_kernels(*constrained(), size)) * scale - wanted
            # Summed over targets, and over the canvas: what is fitted beside a kernel does not change its course.
            (missed.square() + _CHARBONNIER**2).sqrt().sum().backward()
        optimizer.step()
        decay.step()
        with torch.no_grad():
            offsets.copy_(offsets.minimum(limits).maximum(-limits))
        if evaluated is not None:
            evaluated(step, *_result(*constrained(), sums))
    return _result(*constrained(), sums)


def centroids(kernel: Tensor) -> Tensor:
    """The means of x and y over kernels of sum 1, ``(T, M, M) -> (T, 2)``."""
    places = torch.arange(kernel.shape[-1], dtype=kernel.dtype, device=kernel.device) - kernel.shape[-1] // 2
    return torch.stack(((kernel.sum(-2) * places).sum(-1), (kernel.sum(-1) * places).sum(-1)), dim=-1)


def _limits(offsets: Tensor, size: int) -> Tensor:
    """How far the samples of each layer may come, ``(T, L, 1, 1)``: all of them together stay on the canvas."""
    reach = offsets.abs().amax((2, 3), keepdim=True)
    room = _MARGIN + (size // 2 - reach.sum(1, keepdim=True)).clamp_min(0)
    return reach + room / offsets.shape[1]


def _result(offsets: Tensor, weights: Tensor, sums: Tensor) -> tuple[Tensor, Tensor]:
    """The scale of the targets goes into the last layer."""
    weights = weights.detach().clone()
    weights[:, -1] *= sums[..., 0]
    return offsets.detach().clone(), weights
