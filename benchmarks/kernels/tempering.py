"""Fit sparse layers without gradients: parallel simulated tempering (after Schuster, Trettner, Kobbelt; 2020)."""

from __future__ import annotations

import torch
from torch import Tensor
from tqdm import tqdm

from metric_zoo.sparse import SparseKernelComplex
from metric_zoo.sparse.initialize import SPARSE, initial_offsets
from metric_zoo.sparse.loss import EPSILON, natural_power
from metric_zoo.sparse.render import layer_kernels, resize

CHAINS = 10
ITERATIONS = 10_000
_COLDEST, _HOTTEST = 1e-6, 1e-3
"""Temperatures, in units of the relative error; of seven ladders and steps that were tried on five targets, with
6,000 iterations, these came furthest."""
_STEP = 4.0
"""Pixels: standard deviation of a move of the hottest chain. Colder chains move less."""
_SWAP_EVERY = 10


def temper(
    target: Tensor,
    samples: int,
    layers: int,
    iterations: int = ITERATIONS,
    chains: int = CHAINS,
    seed: int = 0,
    progress: bool = False,
    start: SparseKernelComplex | None = None,
) -> SparseKernelComplex:
    """Fit complexes to kernels ``(T, M, M)`` as `SparseKernelComplex.fit` does, but by chance.

    Every chain proposes, at each iteration, to move one sample and to change its weight, by Gaussian steps that are
    smaller for colder chains; it takes the proposal by Metropolis's rule for the relative error of the kernel, in
    which frequencies count as at the end of a fit (`metric_zoo.sparse.loss.natural`). Every ten iterations neighbours
    in temperature may change places. The best state that any chain has seen is the result. Weights of a layer sum to 1
    here, too; they are not negative, and the centroid is not kept.

    Args:
        target: ``(T, M, M)``, not negative.
        samples, layers: as in `SparseKernelComplex.fit`.
        iterations: of each chain; each costs ``chains`` evaluations of a kernel.
        chains: temperatures, spaced geometrically.
        seed: of all chance.
        progress: show a bar.
        start: T complexes to begin with, as `temper` leaves them; None is the sparse start.
    """
    generator = torch.Generator().manual_seed(seed)
    sums = target.sum((-2, -1))
    wanted = target / sums[:, None, None]
    search = _Search(
        wanted, *(_sparse_start(wanted, samples, layers, seed) if start is None else _shares(start)), chains
    )
    for iteration in tqdm(range(iterations), "tempering", disable=not progress, leave=False):
        search.step(int(torch.randint(layers, (), generator=generator)), generator)
        if iteration % _SWAP_EVERY == 0:
            search.swap(iteration // _SWAP_EVERY % 2, generator)
    _, offsets, weights = search.best
    weights = weights / weights.sum(-1, keepdim=True)
    weights[:, -1] *= sums[:, None]
    return SparseKernelComplex(offsets, weights)


def _sparse_start(wanted: Tensor, samples: int, layers: int, seed: int) -> tuple[Tensor, Tensor]:
    offsets = torch.stack([initial_offsets(SPARSE, kernel, samples, layers, seed) for kernel in wanted])
    return offsets, wanted.new_full((len(wanted), layers, samples), 1 / samples)


def _shares(start: SparseKernelComplex) -> tuple[Tensor, Tensor]:
    return start.offsets, start.weights / start.weights.sum(-1, keepdim=True)


class _Search:
    """The chains of all targets. Kernels are compared by their spectra (Parseval): a proposal changes one
    layer, and costs one transform."""

    def __init__(self, wanted: Tensor, offsets: Tensor, weights: Tensor, chains: int) -> None:
        side, layers = wanted.shape[-1], weights.shape[1]
        self.offsets = offsets.to(wanted)[:, None].repeat(1, chains, 1, 1, 1)
        self.weights = weights.to(wanted)[:, None].repeat(1, chains, 1, 1)
        self.size = side + 2 * (side // 4)
        canvas = resize(wanted, self.size)
        # Where little is missing, Charbonnier's loss is a square over twice its epsilon.
        self.power = natural_power(canvas, white=1 / (2 * EPSILON))
        self.wanted = _spectrum(canvas)[:, None]
        self.scale = self._norm(self.wanted)
        self.spectra = torch.stack([self._layer(layer, self.offsets, self.weights) for layer in range(layers)], 2)
        self.now = self._error(self.spectra.prod(2))
        self.best = (self.now.amin(1), self.offsets[:, 0].clone(), self.weights[:, 0].clone())
        ratio = _HOTTEST / _COLDEST
        self.ladder = _COLDEST * ratio ** (torch.arange(chains).to(wanted) / (chains - 1))
        self.reach = (self.ladder / self.ladder[-1]).sqrt()

    def step(self, layer: int, generator: torch.Generator) -> None:
        """Every chain proposes to change one sample of this layer, and takes it or not."""
        offsets, weights = self._propose(layer, generator)
        spectrum = self._layer(layer, offsets, weights)
        others = [i for i in range(self.spectra.shape[2]) if i != layer]
        then = self._error(spectrum * self.spectra[:, :, others].prod(2))
        # What leaves the canvas would come in again on its other side.
        then[(offsets.abs().amax((-2, -1)) + 1).sum(-1) > self.size // 2] = torch.inf
        taken = torch.rand(then.shape, generator=generator) < ((self.now - then) / self.ladder).exp()
        self.now = torch.where(taken, then, self.now)
        self.offsets[:, :, layer] = torch.where(taken[..., None, None], offsets[:, :, layer], self.offsets[:, :, layer])
        self.weights[:, :, layer] = torch.where(taken[..., None], weights[:, :, layer], self.weights[:, :, layer])
        self.spectra[:, :, layer] = torch.where(taken[..., None, None], spectrum, self.spectra[:, :, layer])
        self.best = _better(self.best, self.now, self.offsets, self.weights)

    def swap(self, first: int, generator: torch.Generator) -> None:
        """Pairs of neighbours in temperature, from ``first`` on, may change places."""
        order = _swapped(self.now, self.ladder, first, generator)
        rows = torch.arange(len(order))[:, None]
        for name in ("now", "offsets", "weights", "spectra"):
            setattr(self, name, getattr(self, name)[rows, order])

    def _propose(self, layer: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        count, chains, _, samples = self.weights.shape
        chosen = torch.randint(samples, (count, chains, 1), generator=generator)
        here = torch.zeros(count, chains, samples).scatter_(-1, chosen, 1.0)
        by = torch.randn(count, chains, 1, 2, generator=generator) * _STEP * self.reach[:, None, None]
        more = torch.randn(count, chains, 1, generator=generator) * self.reach[:, None] / samples
        offsets, weights = self.offsets.clone(), self.weights.clone()
        offsets[:, :, layer] += here[..., None] * by
        weights[:, :, layer] = (weights[:, :, layer] + here * more).clamp_min(0)
        return offsets, weights

    def _layer(self, layer: int, offsets: Tensor, weights: Tensor) -> Tensor:
        own = weights[:, :, layer : layer + 1]
        kernel = layer_kernels(offsets[:, :, layer : layer + 1], own / own.sum(-1, keepdim=True), self.size)
        return _spectrum(kernel[:, :, 0])

    def _error(self, spectrum: Tensor) -> Tensor:
        """The norm of the difference as a share of the target's, ``(T, chains)``."""
        return self._norm(spectrum - self.wanted) / self.scale

    def _norm(self, spectrum: Tensor) -> Tensor:
        return (self.power * (spectrum.real.square() + spectrum.imag.square())).sum((-2, -1)).sqrt()


def _spectrum(kernel: Tensor) -> Tensor:
    return torch.fft.rfft2(torch.fft.ifftshift(kernel, dim=(-2, -1)))


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
