"""The board of kernel approximation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from metric_zoo.benchmarks.kernels.report import PUBLISHED, milliseconds, varying
from metric_zoo.files import read_json
from metric_zoo.leaderboards.cells import printable
from metric_zoo.leaderboards.site.foreign import MOST, figure, written_by
from metric_zoo.leaderboards.site.views import Board, Cell, Heading, Row, Table

_READS = Heading("Reads", True, "Of a pixel, in all layers.")
_PSNR = Heading("PSNR, dB", True, "Of the photographs, against the dense kernel's, in the mean.")
_PUBLISHED = Heading("Published, dB", True, "DISK, ICLR 2026; the paper's own kernels and photographs differ.")


def kernels(path: Path) -> Board:
    """The board of ``metric-zoo kernels bench``'s ``kernels.json``.

    Raises:
        RecordError: if it is not such a file.
    """
    with written_by("kernels bench", path):
        report = read_json(path, MOST)
        setting = _setting(report)
        tables = [_quality(report["results"], setting), _latency(report.get("latency", []), setting)]
        tables.append(_varying(report["varying"], setting))
    about = (
        "Dense kernels of 49 x 49 pixels and what stands in for them. NxL: a sparse kernel complex that reads N samples"
        " in each of L layers. Low rank: sums of separable kernels. Tempering: the same layers, searched by chance."
    )
    return Board("kernels", "Kernel approximation", about, [table for table in tables if table.rows])


def _setting(report: dict[str, Any]) -> str:
    about = report["provenance"]
    marked = "; the source was not a clean commit" if about["git_dirty"] is not False else ""
    steps, threads = int(report["steps"]), int(report["threads"])
    return printable(f"{about['hardware']['cpu']}, {threads} threads, float32, {steps:,} steps{marked}")


def _quality(results: list[dict[str, Any]], setting: str) -> Table:
    headings = [Heading("Target", False), Heading("Method", False), _READS, _PSNR, _PUBLISHED, Heading("SSIM", True)]
    headings.append(Heading("FLIP", True, "Perceived difference, 0 is none."))
    headings.append(Heading("Kernel error", True, "2-norm of the difference as a share of the kernel's."))
    headings += [Heading("Evaluations", True, "Of a kernel, while it was fitted."), Heading("Fit, s", True)]
    rows = []
    for row in results:
        target, method = printable(row["target"]), printable(row["method"])
        cells = [Cell(target), Cell(method), _number(row["reads"], "d"), _number(row["psnr"], ".1f")]
        cells.append(_published(target, method))
        forms = {"ssim": ".4f", "flip": ".4f", "kernel_error": ".3f", "evaluations": ",d", "fit_seconds": ".1f"}
        cells += [_number(row[name], form) for name, form in forms.items()]
        rows.append(Row(cells, {"target": target, "method": method}))
    return Table("Single kernels", setting, headings, rows)


def _latency(results: list[dict[str, Any]], setting: str) -> Table:
    headings = [
        Heading("Picture", False),
        Heading("Method", False),
        Heading("ms", True, "Median, half the quartiles' range."),
    ]
    rows = []
    for row in results:
        size, method = f"{int(row['width'])} x {int(row['height'])}", printable(row["method"])
        rows.append(Row([Cell(size), Cell(method), _milliseconds(row["milliseconds"])], {"method": method}))
    return Table("Latency of one kernel, one channel", setting, headings, rows)


def _varying(results: list[dict[str, Any]], setting: str) -> Table:
    reads = Heading("Reads", True, "Of a pixel; of low ranks, for each filter of the basis.")
    headings = [Heading("Effect", False), Heading("Method", False), reads, _PSNR, _PUBLISHED, Heading("Fit, s", True)]
    headings.append(Heading("1920 x 1080, ms", True, "Median, half the quartiles' range."))
    rows = []
    for row in (row for effect in results for row in varying(effect)):
        effect, method = printable(row.effect), printable(row.method)
        forms = ((row.reads, "d"), (row.psnr, ".1f"), (row.published, ".1f"), (row.fit_seconds, ".1f"))
        cells = [Cell(effect), Cell(method), *(_number(*each) for each in forms)]
        cells.append(Cell("") if row.milliseconds is None else _milliseconds(row.milliseconds))
        rows.append(Row(cells, {"method": method}))
    return Table("Filters that change from pixel to pixel", setting, headings, rows)


def _number(value: float | None, form: str) -> Cell:
    if value is None:
        return Cell("")
    return Cell(format(figure(value), form), value)


def _published(name: str, method: str) -> Cell:
    return _number(PUBLISHED.get((name, method)), ".1f")


def _milliseconds(quartiles: list[float]) -> Cell:
    return Cell(milliseconds([figure(quartile) for quartile in quartiles]), quartiles[1])
