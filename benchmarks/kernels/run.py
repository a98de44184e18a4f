"""Fit, filter, compare, time; JSON with every figure, Markdown to read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from metric_zoo.benchmarks.kernels.latency import RANKS, basis_kernels, blend_pictures, time_filters, time_varying
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
    fit: Callable[[Tensor], list[SparseKernelComplex | LowRank]]
    evaluations: int


def bench_kernels(out: Path, steps: int = STEPS, tempering: int = ITERATIONS, repeats: int = 7, only: str = "") -> str:
    """Approximate every target by every method, filter photographs, and time it all; write and return the table.

    Source: DISK, ICLR 2026: single kernels, spatially varying filters, and both ablations.

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
        report["latency"] = time_filters(repeats)
    report["varying"] = [_varying(name, effects[name], photographs, steps, repeats) for name in effects]
    report["provenance"] = provenance(clock.started).model_dump(mode="json")
    table = to_markdown(report)
    publish(out, NAME, report, table)
    return table


def methods(steps: int, tempering: int) -> list[Method]:
    """All that are compared."""
    fits = [(f"{n}x{m}", n, m, "sparse") for n, m in (*SHAPES, *SAME_READS)]
    fits += [(f"24x4, {init}", 24, 4, init) for init in ("radial", "random")]
    found = [Method(name, partial(_fitted, n, m, init, steps), steps) for name, n, m, init in fits]
    found += [Method(f"low rank {rank}", partial(_lowrank, rank), 1) for rank in RANKS]
    if tempering:
        found.append(Method("24x4, tempering", partial(_tempered, tempering), tempering * CHAINS))
    return found


def _fitted(samples: int, layers: int, init: str, steps: int, targets: Tensor) -> list[SparseKernelComplex]:
    every = SparseKernelComplex.fit(targets, samples, layers, init, steps, progress=True)
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


def _varying(name: str, effect: Effect, photographs: Mapping[str, Tensor], steps: int, repeats: int) -> dict[str, Any]:
    clock = Clock()
    bank = FilterBank.fit(effect.kernel_at, effect.grid, effect.samples, steps=steps, warm_steps=min(steps, 300))
    seconds, rows, dense = clock.seconds(), [], []
    kernels = basis_kernels(effect, bank).double().numpy()
    for picture in photographs.values():
        parameters = effect.map_of(*picture.shape)
        wanted = truth(picture, effect, parameters)
        found = bank.apply(picture.float()[None, None], parameters[None].float(), outside="clamp")[0, 0]
        shares = bank.shares(parameters[None], "clamp")[0].numpy()
        rows.append(psnr(found.double(), wanted))
        dense.append(psnr(torch.from_numpy(blend_pictures(picture.numpy(), shares, kernels)), wanted))
    return {"effect": name, "method": f"{effect.samples}x4", "reads": bank.basis.reads,
            "filters": [len(values) for values in effect.grid], "fit_seconds": seconds,
            "psnr": sum(rows) / len(rows), "by_picture": dict(zip(photographs, rows, strict=True)),
            "psnr_of_dense_basis": sum(dense) / len(dense), "latency": time_varying(effect, bank, repeats)}  # fmt: skip
