"""How the cost of geodesic balls grows with the number of pixels."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from metric_zoo.benchmarks.data.noisy import embedded
from metric_zoo.benchmarks.operators.publish import publish
from metric_zoo.benchmarks.provenance import Clock, provenance
from metric_zoo.errors import MetricZooError
from metric_zoo.geometry import ball_samples, geodesic_ball, metric_from_image
from metric_zoo.text import markdown
from metric_zoo.timing import LEAST_REPEATS, alternate, quartiles

NAME = "geodesics"
MARKDOWN = f"{NAME}.md"
SIDES = (64, 128, 256, 512, 1024)
KERNEL = 11
_METRIC = {"anisotropy": 10.0, "iota": 1.0, "tau": 0.5, "axis": "grad_orth", "drift": "grad_orth"}
"""The paper's for geodesic balls, in the middle of its three drifts."""


def bench_geodesics(out: Path, repeats: int = 5, largest: int = SIDES[-1]) -> str:
    """Time the samples of geodesic and of tangent balls, 11 x 11 polar ones, of one real picture in several sizes.

    Args:
        out: folder of the two files.
        repeats: of every size, at least 3.
        largest: pixels a side, at most.

    Returns:
        The table.

    Raises:
        MetricZooError: for too few repeats or sizes; DataError without scikit-image.
    """
    sides = [side for side in SIDES if side <= largest]
    if repeats < LEAST_REPEATS or len(sides) < 2:
        raise MetricZooError(
            f"repeats={repeats}, largest={largest}: at least {LEAST_REPEATS} repeats and two of the sizes {SIDES}"
        )
    clock = Clock()
    report = {"kernel": KERNEL, "threads": torch.get_num_threads(), "repeats": repeats, "rows": _rows(sides, repeats)}
    report |= {"exponent": exponent(report["rows"]), "provenance": provenance(clock).model_dump(mode="json")}
    table = _markdown(report)
    publish(out, NAME, report, table)
    return table


def _rows(sides: list[int], repeats: int) -> list[dict[str, Any]]:
    picture = embedded("camera")[None]
    functions = {}
    for side in sides:
        metric = metric_from_image(_resized(picture, side), **_METRIC)
        functions[f"geodesic {side}"] = partial(geodesic_ball, metric, "polar", KERNEL, radius=2.0)
        functions[f"tangent {side}"] = partial(ball_samples("polar", (KERNEL, KERNEL)).positions, metric)
    seconds = alternate(functions, repeats, torch.device("cpu"))
    return [{"side": side} | {ball: quartiles(seconds[f"{ball} {side}"]) for ball in ("geodesic", "tangent")}
            for side in sides]  # fmt: skip


def _resized(picture: Tensor, side: int) -> Tensor:
    return F.interpolate(picture, (side, side), mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)


def exponent(rows: list[dict[str, Any]]) -> float:
    """p of seconds ~ pixels^p, by least squares on logarithms: 1 is linear."""
    pixels, seconds = (np.log([f(row) for row in rows]) for f in (lambda r: r["side"] ** 2, lambda r: r["geodesic"][1]))
    return float(np.polyfit(pixels, seconds, 1)[0])


def _markdown(report: dict[str, Any]) -> str:
    cells = []
    for row in report["rows"]:
        low, median, high = row["geodesic"]
        nanoseconds = 1e9 * median / (row["side"] ** 2 * KERNEL**2)
        side = f"{row['side']} x {row['side']}"
        spread = f"{median:.3f} ± {(high - low) / 2:.3f}"
        cells.append(
            [side, spread, f"{1e6 * median / row['side'] ** 2:.1f}", f"{nanoseconds:.0f}", f"{row['tangent'][1]:.3f}"]
        )
    headings = ["Pixels", "Geodesic balls, s", "a pixel, µs", "a sample, ns", "Tangent balls, s"]
    hardware = report["provenance"]["hardware"]["cpu"]
    return (
        f"# Geodesic balls\n\nAll samples of {KERNEL} x {KERNEL} polar balls of radius 2 around every pixel of one "
        f"picture, medians of {report['repeats']} alternating runs with half the interquartile range, threads: "
        f"{report['threads']}, float32, {hardware}. Time grows as pixels to the power of {report['exponent']:.2f}.\n\n"
        + markdown(headings, cells, [False, True, True, True, True])
    )
