"""The figures as Markdown."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from metric_zoo.text import markdown

PUBLISHED = {
    ("disk", "24x4"): 49.0,
    ("star", "24x4"): 56.0,
    ("coma", "24x4"): 47.0,
    ("tilt-shift", "24x4"): 39.27,
    ("rotational bokeh", "32x4"): 35.67,
    ("radial motion", "32x4"): 34.21,
}
"""PSNR in dB (DISK, ICLR 2026), on kernels and photographs that were not published with it."""


def to_markdown(report: dict[str, Any]) -> str:
    """All tables."""
    cpu = report["provenance"]["hardware"]["cpu"]
    versions = ", ".join(f"{name} {number}" for name, number in report["provenance"]["versions"].items())
    intro = (
        f"# Kernel approximation\n\nKernels of 49 x 49 pixels with the sum 1, approximated without pictures "
        f"({report['steps']} steps of Adam; tempering: {report['chains']} chains of {report['tempering']:,} "
        f"iterations), then photographs ({', '.join(report['pictures'])}; grey, the border repeated) filtered by "
        f"both. 'NxL' reads N samples a pixel in each of L layers. float32, threads: {report['threads']}, {cpu}. "
        f"{versions}.\n"
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


def _varying_table(report: dict[str, Any]) -> str:
    headings = ["Effect", "Method", "Filters", "PSNR, dB", "Published, dB", "Dense basis, dB", "Fit, s"]
    headings += ["1920 x 1080, ms", "Dense kernel per pixel, ms", "Dense basis blended, ms"]
    rows = [list(_varying_cells(row)) for row in report["varying"]]
    note = (
        "Every pixel has a kernel of its own; the truth is the dense kernel of its parameters, which the basis does "
        "not hold. Dense kernel per pixel: those of the same grid, blended for each pixel and laid over its window by "
        "torch, timed on a few rows. Dense basis blended: the same numbers, from the whole picture filtered by every "
        "dense kernel of the grid (OpenCV's DFT, or scipy's), the pictures weighed pixel by pixel."
    )
    return f"## Filters that change from pixel to pixel\n\n{note}\n\n" + markdown(
        headings, rows, [False, False] + [True] * 8
    )


def _varying_cells(row: dict[str, Any]) -> Iterator[str]:
    published = PUBLISHED.get((row["effect"], row["method"]))
    yield from (row["effect"], row["method"], " x ".join(map(str, row["filters"])), f"{row['psnr']:.1f}")
    yield from ("" if published is None else f"{published:.1f}", f"{row['psnr_of_dense_basis']:.1f}")
    yield f"{row['fit_seconds']:.1f}"
    yield from (milliseconds(entry["milliseconds"]) for entry in row["latency"])


def milliseconds(quartiles: list[float]) -> str:
    """Median, and half the range of the quartiles."""
    low, median, high = quartiles
    digits = 1 if median < 1000 else 0
    return f"{median:,.{digits}f} ± {(high - low) / 2:,.{digits}f}"
