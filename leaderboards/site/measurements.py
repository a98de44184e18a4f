"""The boards of what is measured without training: operators and conversion coverage."""

from __future__ import annotations

import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

import pandas as pd

from metric_zoo.benchmarks.operators.names import DENSE, METRIC, TORCHVISION
from metric_zoo.leaderboards.cells import printable
from metric_zoo.leaderboards.site.foreign import MOST, figure, written_by
from metric_zoo.leaderboards.site.views import Board, Cell, Heading, Row, Table
from metric_zoo.reading import read_json, read_text

_NUMBERS = {"parameters": ("Parameters, M", 1e-6, ".1f"), "convolutions": ("Convolutions", 1, ".0f"),
            "swapped": ("Swapped", 1, ".0f")}  # fmt: skip

_OPERATOR = ("case", "operator", "threads", "pass", "milliseconds")
"""What is shown of a result."""


def operators(path: Path) -> Board:
    """The board of ``metric-zoo ops bench``'s ``operators.json``: a table for every number of threads and pass.

    Raises:
        RecordError: if it is not such a file.
    """
    with written_by("ops bench", path):
        report = read_json(path, MOST)
        results = pd.DataFrame([{name: row[name] for name in _OPERATOR} for row in report["results"]])
        hardware = report["device"] if report["device"] != "cpu" else report["provenance"]["hardware"]["cpu"]
        marked = "; the source was not a clean commit" if report["provenance"]["git_dirty"] is not False else ""
        setting = f"{hardware}, {report['dtype']}, backend {report['backend']}{marked}"
        groups = results.groupby(["threads", "pass"], sort=False, dropna=False)
        tables = [
            _operator_table(part, printable(setting), int(threads), printable(direction))
            for (threads, direction), part in cast("Iterable[tuple[tuple[Any, Any], pd.DataFrame]]", groups)
        ]
    about = (
        "Milliseconds of one call, median over alternating runs and half the interquartile range. "
        "conv2d is torch's dense convolution, torchvision its deformable one."
    )
    return Board("operators", "Operators", about, tables)


def _operator_table(part: pd.DataFrame, setting: str, threads: int, direction: str) -> Table:
    names = list(dict.fromkeys(part["operator"]))
    times = {(row["case"], row["operator"]): row["milliseconds"] for row in part.to_dict("records")}
    headings = [Heading("Case", False, "Images x channels x height x width, channels out, kernel.")]
    headings += [Heading(f"{name}, ms", True) for name in map(printable, names)]
    headings += [Heading("metric / conv2d", True, "The price of sampling: below 2 is good.")]
    headings += [Heading("torchvision / metric", True, "How many times faster than torchvision's deform_conv2d.")]
    rows = []
    for case in dict.fromkeys(part["case"]):
        cells = [_milliseconds(times.get((case, name))) for name in names]
        metric = times.get((case, METRIC))
        cells += [_ratio(metric, times.get((case, DENSE))), _ratio(times.get((case, TORCHVISION)), metric)]
        rows.append(Row([Cell(printable(case)), *cells]))
    filters = {"threads": str(threads), "pass": direction}
    return Table(f"{direction}, {threads} thread{'s' if threads != 1 else ''}", setting, headings, rows, filters)


def _milliseconds(time: dict[str, float] | None) -> Cell:
    if time is None:
        return Cell("")
    lower, median, upper = (figure(time[name]) for name in ("lower_quartile", "median", "upper_quartile"))
    return Cell(f"{median:.1f} ± {(upper - lower) / 2:.1f}", median)


def _ratio(over: dict[str, float] | None, under: dict[str, float] | None) -> Cell:
    if over is None or under is None:
        return Cell("")
    ratio = figure(over["median"] / under["median"])
    return Cell(f"{ratio:.2f}", ratio)


def conversion(path: Path) -> Board:
    """The board of ``metric-zoo conversion sweep``'s ``conversion.csv``: every architecture and what became of it.

    Raises:
        RecordError: if it is not such a file.
    """
    with written_by("conversion sweep", path):
        frame = pd.read_csv(io.StringIO(read_text(path, MOST)), keep_default_na=False)
        kinds = sorted(set(frame["kind"]))
        rows = [
            _architecture(part.to_dict("records"), kinds)
            for _, part in frame.groupby(["source", "model"], dropna=False)
        ]
        passed = (frame["status"] == "ok").sum()
        eligible = passed + (~frame["status"].isin(["ok", "nothing to swap"])).sum()
    headings = [Heading("Model", False), Heading("Source", False), Heading("Family", False)]
    headings += [Heading(heading, True) for heading, *_ in _NUMBERS.values()]
    headings += [Heading(printable(kind), False) for kind in kinds]
    headings.append(Heading("Output moved", True, "Largest change of an output, as a share of its largest magnitude."))
    note = f"{passed:,} of {eligible:,} conversions of architectures with an eligible convolution pass every check."
    about = "Every registered architecture of timm and torchvision with random weights, converted and checked."
    return Board("conversion", "Conversion", about, [Table("Architectures", note, headings, rows)])


def _architecture(results: list[dict[str, Any]], kinds: list[str]) -> Row:
    first = max(results, key=lambda result: int(result["swapped"]))
    status = {result["kind"]: str(result["status"]) for result in results}
    words = {name: printable(str(first[name])) for name in ("model", "source", "family")}
    cells = [Cell(word) for word in words.values()]
    for name, (_, scale, form) in _NUMBERS.items():
        value = figure(max(int(result[name]) for result in results))
        cells.append(Cell(format(value * scale, form), value))
    cells += [Cell(printable(status.get(kind, ""))) for kind in kinds]
    moved = [figure(float(result["difference"])) for result in results if result["difference"] != ""]
    cells.append(Cell(f"{max(moved):.1e}", max(moved)) if moved else Cell(""))
    outcome = "passed" if set(status.values()) <= {"ok", "nothing to swap"} else "not passed"
    if set(status.values()) == {"nothing to swap"}:
        outcome = "nothing to swap"
    return Row(cells, {"source": words["source"], "family": words["family"], "outcome": outcome})
