"""Measure every case and publish: JSON with every figure, Markdown to read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from metric_zoo import ops
from metric_zoo.benchmarks.operators.cases import CASES, CONTENDERS, Case, contenders
from metric_zoo.benchmarks.operators.memory import extra_memory_mib
from metric_zoo.benchmarks.operators.publish import publish
from metric_zoo.benchmarks.provenance import Clock, provenance
from metric_zoo.errors import MetricZooError
from metric_zoo.ops.backends import BACKENDS
from metric_zoo.text import markdown, told
from metric_zoo.timing import LEAST_REPEATS, alternate, quartiles

PASSES = ("forward", "forward+backward")
NAME = "operators"
MARKDOWN = f"{NAME}.md"
_PATIENCE = 60.0
"""Seconds for all contenders of a row, beyond which three repeats are enough."""


def bench_operators(
    out: Path, device: str = "cpu", dtype: str = "float32", repeats: int = 7, only: str | None = None
) -> str:
    """Time all contenders on all cases, on one thread and on all (a GPU: once); write and return the table.

    Args:
        out: folder of the two files.
        device, dtype: where and in what the operators compute.
        repeats: of every contender, at least 3.
        only: a part of the names of the cases to measure.

    Raises:
        MetricZooError: for a device that is missing, a dtype that is none, too few repeats, or no case.
    """
    where, kind = device_named(device), _dtype(dtype)
    cases = [case for case in CASES if only is None or only in str(case)]
    if repeats < LEAST_REPEATS:
        raise MetricZooError(f"repeats={repeats}: at least {LEAST_REPEATS}, or there are no quartiles")
    if not cases:
        raise MetricZooError(f"no case contains {only!r}; known: {', '.join(map(str, CASES))}")
    report = measure_cases(cases, where, kind, repeats)
    table = to_markdown(report)
    publish(out, NAME, report, table)
    return table


def measure_cases(
    cases: Sequence[Case],
    device: torch.device,
    dtype: torch.dtype,
    repeats: int,
    operators: Sequence[str] = CONTENDERS,
) -> dict[str, Any]:
    """Every figure of some contenders, and what they were obtained with."""
    clock, results = Clock(), []
    everywhere = torch.get_num_threads()
    threads = sorted({1, everywhere}) if device.type == "cpu" else [everywhere]
    for case in tqdm(cases, desc=f"operators, {dtype}", unit="case"):
        for count in threads:
            with _threads(count):
                results += _measure(case, device, dtype, repeats, operators)
    backend = ops.backend(device.type)
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "dtype": str(dtype).removeprefix("torch."),
        "backend": backend,
        "instructions": BACKENDS[backend].instructions(),
        "repeats": repeats,
        "provenance": provenance(clock).model_dump(),
        "results": results,
    }


def _measure(
    case: Case, device: torch.device, dtype: torch.dtype, repeats: int, names: Sequence[str]
) -> list[dict[str, Any]]:
    operators = {name: made for name, made in contenders(case, device, dtype).items() if name in names}
    rows = []
    for name, step in (("forward", _forward), ("forward+backward", _training)):
        steps = {label: step(operator, leaves) for label, (operator, leaves) in operators.items()}
        seconds = alternate(steps, repeats, device, _PATIENCE)
        for label, values in seconds.items():
            lower, median, upper = quartiles(values)
            rows.append(
                {
                    "case": str(case),
                    "threads": torch.get_num_threads(),
                    "pass": name,
                    "operator": label,
                    "repeats": len(values),
                    "milliseconds": {
                        "lower_quartile": lower * 1e3,
                        "median": median * 1e3,
                        "upper_quartile": upper * 1e3,
                    },
                    "extra_memory_mib": extra_memory_mib(steps[label], device),
                }
            )
    return rows


def _forward(operator: Callable[[], Tensor], leaves: Sequence[Tensor]) -> Callable[[], Tensor]:
    @torch.no_grad()
    def step() -> Tensor:
        return operator()

    return step


def _training(operator: Callable[[], Tensor], leaves: Sequence[Tensor]) -> Callable[[], object]:
    upstream = torch.ones_like(_forward(operator, leaves)())

    def step() -> tuple[Tensor, ...]:
        return torch.autograd.grad(operator(), leaves, upstream)

    return step


def to_markdown(report: dict[str, Any]) -> str:
    """The table: one row per case, number of threads and pass; milliseconds, and ratios to both references."""
    by_row: dict[tuple, dict[str, dict]] = {}
    for result in report["results"]:
        by_row.setdefault((result["case"], result["threads"], result["pass"]), {})[result["operator"]] = result
    headings = [
        *("Case", "Threads", "Pass"),
        *(f"{name}, ms" for name in _measured(report)),
        *("metric / conv2d", "torchvision / metric", "conv2d, MiB", "metric, MiB"),
    ]
    rows = [[*map(str, key), *_cells(found, _measured(report))] for key, found in by_row.items()]
    versions = ", ".join(f"{name} {number}" for name, number in report["provenance"]["versions"].items())
    instructions = f" ({report['instructions']})" if report["instructions"] else ""
    return (
        f"# Operators\n\nMedians of {report['repeats']} alternating runs (3 where they take minutes) "
        f"with half the interquartile range, "
        f"{report['dtype']}, backend {report['backend']}{instructions}, on {report['device']}: "
        f"{report['provenance']['hardware']['cpu']}. MiB: peak memory beyond the arguments. {versions}.\n\n"
        + markdown(headings, rows, [False, True, False] + [True] * (len(headings) - 3))
    )


def _measured(report: dict[str, Any]) -> list[str]:
    return list(dict.fromkeys(result["operator"] for result in report["results"]))


def _cells(found: dict[str, dict], names: Sequence[str]) -> Iterator[str]:
    median = {name: found[name]["milliseconds"]["median"] for name in names}
    for name in names:
        time = found[name]["milliseconds"]
        digits = 1 if time["median"] >= 1 else 3
        yield f"{time['median']:.{digits}f} ± {(time['upper_quartile'] - time['lower_quartile']) / 2:.{digits}f}"
    yield f"{median['metric'] / median['conv2d']:.2f}"
    yield f"{median['torchvision'] / median['metric']:.1f}"
    for name in ("conv2d", "metric"):
        memory = found[name]["extra_memory_mib"]
        yield "" if memory is None else f"{memory:.0f}"


def device_named(name: str) -> torch.device:
    """A device that works.

    Raises:
        MetricZooError: if it does not.
    """
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise MetricZooError(f"device {name!r} is not available: {told(error)}") from error
    return device


def _dtype(name: str) -> torch.dtype:
    dtype = getattr(torch, name, None)
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise MetricZooError(f"dtype {name!r} is no floating-point type of torch")
    return dtype


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
