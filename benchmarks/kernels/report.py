"""The figures as Markdown."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from metric_zoo.text import markdown

PUBLISHED = {
    ("disk", "24x4"): 49.0,
    ("star", "24x4"): 56.0,
    ("coma", "24x4"): 47.0,
    ("tilt-shift", "24x4"): 39.27,
    ("rotational bokeh", "32x4"): 35.67,
    ("radial motion", "32x4"): 34.21,
    ("tilt-shift", "24x4, tempering"): 32.49,
    ("rotational bokeh", "32x4, tempering"): 28.56,
    ("radial motion", "32x4, tempering"): 27.11,
    ("tilt-shift", "low rank 2"): 33.22,
}
"""PSNR in dB (DISK, ICLR 2026), on kernels and photographs that were not published with it."""


def to_markdown(report: dict[str, Any]) -> str:
    """All tables."""
    cpu = report["provenance"]["hardware"]["cpu"]
    versions = ", ".join(f"{name} {number}" for name, number in report["provenance"]["versions"].items())
    intro = (
        f"# Kernel approximation\n\nKernels of 49 x 49 pixels with the sum 1, approximated without pictures "
        f"({report['steps']} steps of Adam; tempering: {report['chains']} chains of {report['tempering']:,} "
        "iterations; both weigh frequencies as natural images do, but for 'Charbonnier alone', the paper's loss), then "
        f"photographs ({', '.join(report['pictures'])}; grey, the border repeated) filtered by both. 'NxL' reads N "
        f"samples a pixel in each of L layers. float32, threads: {report['threads']}, {cpu}. {versions}.\n"
    )
    parts = [intro]
    if report["results"]:
        parts += [_psnr_table(report), _mean_table(report), _latency_table(report)]
    if report["varying"]:
        parts.append(_varying_table(report))
    return "\n".join(parts)


def by_target(report: dict[str, Any]) -> dict[str, dict[str, dict[str, Any]]]:
    """Results by target and method."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for row in report["results"]:
        found.setdefault(row["target"], {})[row["method"]] = row
    return found


def method_names(report: dict[str, Any]) -> list[str]:
    """In the order in which they were measured."""
    return list(dict.fromkeys(row["method"] for row in report["results"]))


def _psnr_table(report: dict[str, Any]) -> str:
    names = method_names(report)
    rows = [[target, *(f"{found[name]['psnr']:.1f}" for name in names)] for target, found in by_target(report).items()]
    table = markdown(["Target", *names], rows, [False] + [True] * len(names))
    return f"## PSNR of the photographs, dB\n\nMeans over the photographs. {_published(report)}\n\n{table}"


def _published(report: dict[str, Any]) -> str:
    found = by_target(report)
    told = [
        f"{target} {level:.0f} dB (here {found[target][method]['psnr']:.1f})"
        for (target, method), level in PUBLISHED.items()
        if target in found
    ]
    return f"Published at 24x4: {', '.join(told)}; the paper's own kernels and pictures differ." if told else ""


def _mean_table(report: dict[str, Any]) -> str:
    headings = ["Method", "Reads", "PSNR, dB", "SSIM", "FLIP", "Kernel error", "Evaluations", "Fit of one, s"]
    rows = []
    for name in method_names(report):
        own = [row for row in report["results"] if row["method"] == name]
        mean = {key: sum(row[key] for row in own) / len(own) for key in ("psnr", "ssim", "flip", "kernel_error")}
        rows.append(
            [name, str(own[0]["reads"]), f"{mean['psnr']:.1f}", f"{mean['ssim']:.4f}", f"{mean['flip']:.4f}",
             f"{mean['kernel_error']:.3f}", f"{own[0]['evaluations']:,}", f"{own[0]['fit_seconds']:.2f}"]
        )  # fmt: skip
    note = (
        "Means over the targets. Kernel error: 2-norm of the difference as a share of the kernel's. All targets are "
        "fitted at once; the time is shared out. (LPIPS, which the paper also gives, needs weights that are not in a "
        "package.)"
    )
    return f"## Methods\n\n{note}\n\n" + markdown(headings, rows, [False] + [True] * 7)


def _latency_table(report: dict[str, Any]) -> str:
    sizes = list(dict.fromkeys((row["height"], row["width"]) for row in report["latency"]))
    times: dict[str, list[str]] = {}
    for row in report["latency"]:
        times.setdefault(row["method"], []).append(milliseconds(row["milliseconds"]))
    headings = ["Method", *(f"{width} x {height}, ms" for height, width in sizes)]
    rows = [[name, *cells] for name, cells in times.items()]
    note = f"One channel, medians of {report['repeats']} alternating runs with half the interquartile range."
    return f"## Latency\n\n{note}\n\n" + markdown(headings, rows, [False] + [True] * len(sizes))


@dataclass(frozen=True)
class Varying:
    """A way to give every pixel a filter of its own, in figures; None where it was not measured, or is not published.

    Attributes:
        reads: of a pixel; of low ranks, for each filter of the basis.
        milliseconds: quartiles, at 1920 x 1080.
    """

    effect: str
    method: str
    reads: int | None
    psnr: float | None
    fit_seconds: float | None
    milliseconds: list[float] | None

    @property
    def published(self) -> float | None:
        """In dB."""
        return PUBLISHED.get((self.effect, self.method))


def varying(effect: dict[str, Any]) -> list[Varying]:
    """Of one of a report's effects, every method."""
    name, own = effect["effect"], effect["method"]
    times = {entry["method"]: entry["milliseconds"] for entry in effect["latency"]}
    peers = {peer["method"]: peer for peer in effect.get("peers", [])}
    first = {own: {key: effect[key] for key in ("reads", "psnr", "fit_seconds")}}
    dense = {method: {"psnr": effect["psnr_of_dense_basis"]} for method in times if method not in (own, *peers)}
    return [
        Varying(name, method, row.get("reads"), row.get("psnr"), row.get("fit_seconds"), times.get(method))
        for method, row in {**first, **peers, **dense}.items()
    ]


def _varying_table(report: dict[str, Any]) -> str:
    headings = ["Effect", "Method", "Reads", "PSNR, dB", "Published, dB", "Fit, s", "1920 x 1080, ms"]
    rows = [list(_varying_cells(row)) for effect in report["varying"] for row in varying(effect)]
    bases = ", ".join(f"{row['effect']} {' x '.join(map(str, row['filters']))}" for row in report["varying"])
    note = (
        f"Every pixel has a kernel of its own; the truth is the dense kernel of its parameters, which no basis holds "
        f"(filters of the bases: {bases}). Dense kernel per pixel: those of the basis, blended for each pixel and laid "
        "over its window by torch, in pieces that fit the cache, timed on a few rows. Dense basis, blended: the same "
        "numbers, from the whole picture filtered by every dense kernel (OpenCV's DFT, or scipy's), the pictures "
        "weighed pixel by pixel. Low rank: the same with sums of separable kernels (OpenCV's, or torch's); reads are "
        "those of each. Tempering: the layers of the first row, every filter searched from its neighbour's; they take "
        "as long."
    )
    return f"## Filters that change from pixel to pixel\n\n{note}\n\n" + markdown(
        headings, rows, [False, False] + [True] * 5
    )


def _varying_cells(row: Varying) -> Iterator[str]:
    yield from (row.effect, row.method, "" if row.reads is None else str(row.reads))
    yield from ("" if value is None else f"{value:.1f}" for value in (row.psnr, row.published, row.fit_seconds))
    yield "" if row.milliseconds is None else milliseconds(row.milliseconds)


def milliseconds(quartiles: list[float]) -> str:
    """Median, and half the range of the quartiles."""
    low, median, high = quartiles
    digits = 1 if median < 1000 else 0
    return f"{median:,.{digits}f} ± {(high - low) / 2:,.{digits}f}"
