"""Fit sparse kernel complexes to dense kernels through their impulse response."""

from __future__ import annotations

import torch
from torch import Tensor
from tqdm import tqdm

from metric_zoo.errors import MetricZooError
from metric_zoo.sparse.loss import Loss
from metric_zoo.sparse.render import compose, layer_kernels, resize

STEPS = 1000
_END = 0.1
"""Learning rates fall to this share of themselves, linearly (DISK: from 1e-3 to 1e-4)."""
_WEIGHT_RATE = 0.05
"""Of a sample's initial weight."""
_MARGIN = 12
"""Pixels that all layers together may grow beyond where they began."""


def check_target(target: Tensor, signed: bool = False) -> None:
    """Raise unless ``(T, M, M)`` are kernels that can be fitted.

    Raises:
        MetricZooError: if they are not square, of an even size, empty, not finite, or negative unless ``signed``.
    """
    shape = tuple(target.shape)
    if target.dim() != 3 or shape[1] != shape[2] or 0 in shape:
        raise MetricZooError(f"target has shape {shape}: expected square kernels (M, M) or (T, M, M)")
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
    measure: Loss,
    steps: int = STEPS,
    *,
    signed: bool = False,
    progress: bool = False,
) -> tuple[Tensor, Tensor]:
    """Fit T complexes to T kernels at once, by Adam on what their impulse responses miss (DISK, ICLR 2026,
    https://arxiv.org/abs/2512.04556).

    Kernels that are not ``signed`` keep their sum and their centroid: every layer's weights are divided by their sum
    while they are learned, and all samples moved by what the centroid lacks. Without that most of a fit's error is one
    of brightness and position. Single weights may become negative all the same. The response is computed as the
    product of the layers' spectra, on a canvas that holds it whole.

    Args:
        target: ``(T, M, M)``; see `check_target`.
        offsets: ``(T, L, N, 2)``, where to begin.
        weights: ``(T, L, N)``.
        measure: what is minimised, and how fast.
        steps: of Adam.
        signed: whether the targets may have negative values; their sums are then learned like everything else.
        progress: show a bar, after two seconds.

    Returns:
        Offsets and weights as given, fitted; the weights of all layers but the last sum to 1 unless ``signed``.
    """
    # A trained layer's weight may come from inference mode, have a history, or be fitted under autocast.
    with torch.inference_mode(False), torch.enable_grad(), torch.autocast(target.device.type, enabled=False):
        target, offsets, weights = (t.detach().clone() for t in (target, offsets, weights))
        return _optimize(target, offsets, weights, measure, steps, signed, progress)


def _optimize(
    target: Tensor, offsets: Tensor, weights: Tensor, measure: Loss, steps: int, signed: bool, progress: bool
) -> tuple[Tensor, Tensor]:
    sums = target.abs().sum((-2, -1), keepdim=True)
    scale = sums / target.abs().amax((-2, -1), keepdim=True)
    centroid = None if signed else centroids(target / sums)
    offsets = _constrained(offsets, weights, centroid)[0].requires_grad_()
    limits = _limits(offsets.detach(), target.shape[-1])
    size = 2 * int(limits.sum(1).max().ceil().item() + offsets.shape[1]) + 1
    wanted = resize(target / sums, size) * scale
    rates = measure.rate * max(1, target.shape[-1] // 2), _WEIGHT_RATE * weights.abs().mean().item()
    weights.requires_grad_()
    optimizer = torch.optim.Adam(
        [{"params": [tensor], "lr": rate} for tensor, rate in zip((offsets, weights), rates, strict=True)]
    )
    decay = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, _END, steps)
    for _ in tqdm(range(steps), "fitting", disable=not progress, delay=2, leave=False):
        optimizer.zero_grad()
        missed = compose(layer_kernels(*_constrained(offsets, weights, centroid), size)) * scale - wanted
        # Summed over targets, and over the canvas: what is fitted beside a kernel changes its course only by the
        # frequencies that a larger canvas has.
        measure.of(missed).backward()
        optimizer.step()
        decay.step()
        with torch.no_grad():
            moved = _constrained(offsets, weights, centroid)[0]
            offsets.copy_(moved.minimum(limits).maximum(-limits))
    offsets, weights = (t.detach().clone() for t in _constrained(offsets, weights, centroid))
    weights[:, -1] *= sums[..., 0]  # the scale of the targets goes into the last layer
    return offsets, weights


def _constrained(offsets: Tensor, weights: Tensor, centroid: Tensor | None) -> tuple[Tensor, Tensor]:
    """With weights of sum 1 in every layer, and moved alike in all of them so that the kernel's centroid is this one;
    as they are without one."""
    if centroid is None:
        return offsets, weights
    shares = weights / weights.sum(-1, keepdim=True)
    missing = centroid - (shares[..., None] * offsets).sum((1, 2))
    return offsets + missing[:, None, None] / offsets.shape[1], shares


def centroids(kernel: Tensor) -> Tensor:
    """The means of x and y over kernels of sum 1, ``(T, M, M) -> (T, 2)``."""
    places = torch.arange(kernel.shape[-1], dtype=kernel.dtype, device=kernel.device) - kernel.shape[-1] // 2
    return torch.stack(((kernel.sum(-2) * places).sum(-1), (kernel.sum(-1) * places).sum(-1)), dim=-1)


def _limits(offsets: Tensor, size: int) -> Tensor:
    """How far the samples of each layer may come, ``(T, L, 1, 1)``: all of them together stay on the canvas."""
    reach = offsets.abs().amax((2, 3), keepdim=True)
    room = _MARGIN + (size // 2 - reach.sum(1, keepdim=True)).clamp_min(0)
    return reach + room / offsets.shape[1]
