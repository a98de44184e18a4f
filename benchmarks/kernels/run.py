"""Fit, filter, compare, time; JSON with every figure, Markdown to read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from metric_zoo.benchmarks.kernels.latency import (
    RANKS,
    Filter,
    basis_kernels,
    blend_pictures,
    dense_basis,
    low_rank_basis,
    time_filters,
    time_varying,
)
from metric_zoo.benchmarks.kernels.lowrank import LowRank
from metric_zoo.benchmarks.kernels.quality import compare, dense_filter, kernel_error, mean_of, pictures, psnr
from metric_zoo.benchmarks.kernels.report import to_markdown
from metric_zoo.benchmarks.kernels.tempering import CHAINS, ITERATIONS, temper
from metric_zoo.benchmarks.kernels.varying import EFFECTS, Effect, truth
from metric_zoo.benchmarks.operators.publish import publish
from metric_zoo.benchmarks.provenance import Clock, provenance
from metric_zoo.errors import MetricZooError
from metric_zoo.sparse import FilterBank, SparseKernelComplex
from metric_zoo.sparse.fit import STEPS
from metric_zoo.sparse.targets import TARGETS, get_target
from metric_zoo.timing import LEAST_REPEATS

NAME = "kernels"
MARKDOWN = f"{NAME}.md"
SHAPES = ((24, 4), (12, 4), (32, 4), (8, 6))
"""Samples of a layer, and layers."""
SAME_READS = ((96, 1), (48, 2), (32, 3), (16, 6))
"""What 24x4 is compared with: as many reads, in more layers or in fewer."""


@dataclass(frozen=True)
class Method:
    """A way to approximate kernels: its name, and what it makes of all targets at once.

    Attributes:
        evaluations: of a kernel, that fitting one target takes.
    """

    name: str
    fit: Callable[[Tensor], Sequence[SparseKernelComplex | LowRank]]
    evaluations: int


def bench_kernels(out: Path, steps: int = STEPS, tempering: int = ITERATIONS, repeats: int = 7, only: str = "") -> str:
    """Approximate every target by every method, filter photographs, and time it all; write and return the table.

    Source: DISK, ICLR 2026, https://arxiv.org/abs/2512.04556: single kernels, spatially varying filters, and both
    ablations.

    Args:
        out: folder of the two files.
        steps: of a fit.
        tempering: iterations of each chain of parallel tempering.
        repeats: of every timing, at least 3.
        only: a part of the names of targets and effects.

    Raises:
        MetricZooError: for too few repeats, or names that none has; DataError without scikit-image or flip-evaluator.
    """
    if repeats < LEAST_REPEATS:
        raise MetricZooError(f"repeats={repeats}: at least {LEAST_REPEATS}, or there are no quartiles")
    names = [name for name in TARGETS if only in name]
    effects = {name: effect for name, effect in EFFECTS.items() if only in name}
    if not names and not effects:
        raise MetricZooError(f"no target or effect has {only!r} in its name; known: {', '.join((*TARGETS, *EFFECTS))}")
    clock, photographs = Clock(), pictures()
    report: dict[str, Any] = {"steps": steps, "tempering": tempering, "chains": CHAINS, "repeats": repeats,
                              "pictures": list(photographs), "threads": torch.get_num_threads(),
                              "results": []}  # fmt: skip
    if names:
        targets = torch.stack([get_target(name) for name in names])
        for method in methods(steps, tempering):
            report["results"] += _results(method, names, targets, photographs)
        report["latency"] = time_filters(repeats, steps)
    report["varying"] = [
        _varying(name, effect, photographs, steps, tempering, repeats) for name, effect in effects.items()
    ]
    report["provenance"] = provenance(clock).model_dump(mode="json")
    table = to_markdown(report)
    publish(out, NAME, report, table)
    return table


def methods(steps: int, tempering: int) -> list[Method]:
    """All that are compared."""
    fits = {f"{n}x{m}": (n, m, {}) for n, m in (*SHAPES, *SAME_READS)}
    fits |= {f"24x4, {init}": (24, 4, {"init": init}) for init in ("radial", "random")}
    fits["24x4, Charbonnier alone"] = 24, 4, {"loss": "charbonnier"}
    found = [Method(name, partial(_fitted, n, m, more, steps), steps) for name, (n, m, more) in fits.items()]
    found += [Method(f"low rank {rank}", partial(_lowrank, rank), 1) for rank in RANKS]
    if tempering:
        found.append(Method("24x4, tempering", partial(_tempered, tempering), tempering * CHAINS))
    return found


def _fitted(
    samples: int, layers: int, more: Mapping[str, Any], steps: int, targets: Tensor
) -> list[SparseKernelComplex]:
    every = SparseKernelComplex.fit(targets, samples, layers, steps=steps, progress=True, **more)
    return [every[index] for index in range(len(targets))]


def _lowrank(rank: int, targets: Tensor) -> list[LowRank]:
    return [LowRank.fit(target, rank) for target in targets]


def _tempered(iterations: int, targets: Tensor) -> list[SparseKernelComplex]:
    every = temper(targets, 24, 4, iterations, progress=True)
    return [every[index] for index in range(len(targets))]


def _results(
    method: Method, names: list[str], targets: Tensor, photographs: Mapping[str, Tensor]
) -> list[dict[str, Any]]:
    clock = Clock()
    fits = method.fit(targets)
    seconds = clock.seconds() / len(names)
    rows = []
    for name, target, fit in zip(names, targets, fits, strict=True):
        filtered = [(fit.apply(p.float()[None, None])[0, 0], dense_filter(p, target)) for p in photographs.values()]
        rows.append(
            {"target": name, "method": method.name, "reads": fit.reads, "evaluations": method.evaluations,
             "fit_seconds": seconds, "kernel_error": kernel_error(fit.kernel(), target)}
            | mean_of([compare(*pair) for pair in filtered])
        )  # fmt: skip
    return rows


def _varying(
    name: str, effect: Effect, photographs: Mapping[str, Tensor], steps: int, tempering: int, repeats: int
) -> dict[str, Any]:
    clock = Clock()
    bank = FilterBank.fit(effect.kernel_at, effect.grid, effect.samples, steps=steps, warm_steps=_warm(steps))
    seconds, kernels = clock.seconds(), basis_kernels(effect, bank)
    wanted = {title: truth(picture, effect, effect.map_of(*picture.shape)) for title, picture in photographs.items()}

    def score(filtered: Callable[[Tensor, Tensor], Tensor]) -> dict[str, float]:
        """PSNR by picture, of what filters one with its parameters ``(1, D, H, W)``."""
        return {
            title: psnr(filtered(picture, effect.map_of(*picture.shape)[None]).double(), wanted[title])
            for title, picture in photographs.items()
        }

    rows, dense = score(partial(_banked, bank)), score(partial(_blended, bank, dense_basis(kernels.double())))
    return {"effect": name, "method": f"{effect.samples}x4", "reads": bank.basis.reads,
            "filters": [len(values) for values in effect.grid], "fit_seconds": seconds,
            "psnr": _mean(rows), "by_picture": rows, "psnr_of_dense_basis": _mean(dense),
            "peers": _peers(effect, bank, kernels, tempering, score),
            "latency": time_varying(effect, bank, repeats)}  # fmt: skip


def _peers(
    effect: Effect,
    bank: FilterBank,
    kernels: Tensor,
    tempering: int,
    score: Callable[[Callable[[Tensor, Tensor], Tensor]], dict[str, float]],
) -> list[dict[str, Any]]:
    """The same pictures by low ranks of the basis, and by the bank's layers, found by tempering."""
    found = [
        {"method": f"low rank {rank}", "reads": 2 * rank * kernels.shape[-1],
         "psnr": _mean(score(partial(_blended, bank, low_rank_basis(kernels.double(), rank))))}
        for rank in RANKS
    ]  # fmt: skip
    if tempering:
        clock = Clock()
        other = FilterBank.grown(effect.kernel_at, effect.grid, partial(_tempered_from, effect.samples, tempering))
        found.append({"method": f"{effect.samples}x4, tempering", "reads": other.basis.reads,
                      "fit_seconds": clock.seconds(), "psnr": _mean(score(partial(_banked, other)))})  # fmt: skip
    return found


def _tempered_from(
    samples: int, iterations: int, targets: Tensor, start: SparseKernelComplex | None
) -> SparseKernelComplex:
    return temper(targets, samples, 4, iterations if start is None else _warm(iterations), progress=True, start=start)


def _warm(steps: int) -> int:
    """Of a fit that begins at a neighbour's."""
    return max(1, 3 * steps // 10)


def _banked(bank: FilterBank, picture: Tensor, parameters: Tensor) -> Tensor:
    return bank.apply(picture.float()[None, None], parameters.float(), outside="clamp")[0, 0]


def _blended(bank: FilterBank, filters: list[Filter], picture: Tensor, parameters: Tensor) -> Tensor:
    return torch.from_numpy(blend_pictures(picture.numpy(), bank.shares(parameters, "clamp")[0].numpy(), filters))


def _mean(scores: Mapping[str, float]) -> float:
    return sum(scores.values()) / len(scores)
