"""Fit sparse layers without gradients: parallel simulated tempering (after Schuster, Trettner, Kobbelt; 2020)."""

from __future__ import annotations

import torch
from torch import Tensor
from tqdm import tqdm

from metric_zoo.sparse import SparseKernelComplex
from metric_zoo.sparse.initialize import initial_offsets
from metric_zoo.sparse.render import compose, layer_kernels, resize

CHAINS = 10
ITERATIONS = 10_000
_COLDEST, _HOTTEST = 1e-4, 1e-1
"""Temperatures, in units of the relative error, whose chains accept almost nothing and almost everything."""
_STEP = 1.0
"""Pixels that a sample moves at the hottest chain's steps, in the mean; colder chains move less."""
_SWAP_EVERY = 10


def temper(
    target: Tensor,
    samples: int,
    layers: int,
    iterations: int = ITERATIONS,
    chains: int = CHAINS,
    seed: int = 0,
    progress: bool = False,
) -> SparseKernelComplex:
    """Fit complexes to kernels ``(T, M, M)`` as `SparseKernelComplex.fit` does, from its sparse start, but by chance.

    Every chain proposes, at each iteration, to move one sample and to change its weight, by Gaussian steps that are
    smaller for colder chains; it takes the proposal by Metropolis's rule for the relative error of the kernel. Every
    ten iterations neighbours in temperature may change places. The best state that any chain has seen is the result.
    Weights of a layer sum to 1 here, too: what differs is the search alone.

    Args:
        target: ``(T, M, M)``, not negative.
        samples, layers: as in `SparseKernelComplex.fit`.
        iterations: of each chain; each costs ``chains`` evaluations of a kernel.
        chains: temperatures, spaced geometrically.
        seed: of all chance.
        progress: show a bar.
    """
    generator = torch.Generator().manual_seed(seed)
    count = len(target)
    sums = target.sum((-2, -1))
    wanted = target / sums[:, None, None]
    start = torch.stack([initial_offsets("sparse", kernel, samples, layers, seed) for kernel in wanted])
    offsets = start.to(target)[:, None].expand(-1, chains, -1, -1, -1).clone()
    weights = target.new_full((count, chains, layers, samples), 1 / samples)
    size = target.shape[-1] + 2 * (target.shape[-1] // 4)
    wanted = resize(wanted, size)[:, None]
    scale = wanted.flatten(2).norm(dim=-1)
    ladder = torch.logspace(0, 1, chains, _HOTTEST / _COLDEST).to(target) * _COLDEST
    step = (ladder / ladder[-1]).sqrt()

    def energy(offsets: Tensor, weights: Tensor) -> Tensor:
        kernel = compose(layer_kernels(offsets, weights / weights.sum(-1, keepdim=True), size))
        return (kernel - wanted).flatten(2).norm(dim=-1) / scale

    now = energy(offsets, weights)
    best = (now.amin(1), offsets[:, 0].clone(), weights[:, 0].clone())
    for iteration in tqdm(range(iterations), "tempering", disable=not progress, leave=False):
        moved, changed = _propose(offsets, weights, step, generator)
        then = energy(moved, changed)
        taken = torch.rand(now.shape, generator=generator) < ((now - then) / ladder).exp()
        now = torch.where(taken, then, now)
        offsets = torch.where(taken[..., None, None, None], moved, offsets)
        weights = torch.where(taken[..., None, None], changed, weights)
        best = _better(best, now, offsets, weights)
        if iteration % _SWAP_EVERY == 0:
            order = _swapped(now, ladder, iteration // _SWAP_EVERY % 2, generator)
            now, offsets, weights = (t[torch.arange(count)[:, None], order] for t in (now, offsets, weights))
    _, offsets, weights = best
    weights = weights / weights.sum(-1, keepdim=True)
    weights[:, -1] *= sums[:, None]
    return SparseKernelComplex(offsets, weights)


def _propose(offsets: Tensor, weights: Tensor, step: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """One sample of every chain, moved and weighted anew."""
    count, chains, layers, samples = weights.shape
    chosen = torch.randint(layers * samples, (count, chains, 1), generator=generator)
    here = torch.zeros(count, chains, layers * samples).scatter_(-1, chosen, 1.0).view_as(weights)
    by = torch.randn(count, chains, 1, 1, 2, generator=generator) * _STEP * step[:, None, None, None]
    more = torch.randn(count, chains, 1, 1, generator=generator) * step[:, None, None] / samples
    return offsets + here[..., None] * by, (weights + here * more).clamp_min(0)


def _better(best: tuple[Tensor, Tensor, Tensor], now: Tensor, offsets: Tensor, weights: Tensor):
    least, chain = now.min(1)
    rows = torch.arange(len(now))
    better = least < best[0]
    return (
        torch.where(better, least, best[0]),
        torch.where(better[:, None, None, None], offsets[rows, chain], best[1]),
        torch.where(better[:, None, None], weights[rows, chain], best[2]),
    )


def _swapped(now: Tensor, ladder: Tensor, first: int, generator: torch.Generator) -> Tensor:
    """The chains' order ``(T, chains)`` after pairs of neighbours, from ``first`` on, may have changed places."""
    count, chains = now.shape
    order = torch.arange(chains).repeat(count, 1)
    for cold in range(first, chains - 1, 2):
        gain = (now[:, cold] - now[:, cold + 1]) * (1 / ladder[cold] - 1 / ladder[cold + 1])
        swap = torch.rand(count, generator=generator) < gain.exp()
        order[swap, cold], order[swap, cold + 1] = cold + 1, cold
    return order
