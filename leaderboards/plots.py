"""Pictures of a leaderboard, as SVG that reads on light and dark paper."""

from __future__ import annotations

import io
from collections.abc import Sequence

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from metric_zoo.benchmarks.record import Record
from metric_zoo.leaderboards.cells import printable
from metric_zoo.leaderboards.statistics import FRONTS

# Text stays text, names inside the file follow from its content, and no date: the same records, the same bytes.
_STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "metric-zoo",
    "text.parse_math": False,  # a record's dollar sign is a dollar sign
    "font.family": "sans-serif",
    "font.sans-serif": ["system-ui", "sans-serif", "DejaVu Sans"],
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
}
_INK = "#7d8794"
"""Grey of equal contrast to white and to the dark page."""
COLOURS = ("#3b7dd8", "#e08a1e", "#2e9e6b", "#b055c4", "#d6456b", "#1ba3b8", "#8a7a2c", "#6b6fd6")
_MARKERS = "osD^vP*X"

_AXES = {
    "inference": "inference, images/s",
    "parameters": "parameters, thousands",
    "generalization_gap": "generalization gap, points",
}
_LABELLED = 12


def kinds_in_order(kinds: Sequence[str]) -> list[str]:
    """Standard first, then by name: a kind has the same colour in every picture of a page."""
    return sorted(set(kinds), key=lambda kind: (kind != "standard", kind))


def tradeoffs(rows: pd.DataFrame) -> str:
    """Test accuracy against throughput, parameters and generalization gap; lines join the points that none beats.

    Args:
        rows: of one group of a leaderboard.
    """
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(9, 3.1), layout="constrained")
        for axes, name in zip(figure.subplots(1, 3, sharey=True), FRONTS, strict=True):
            _tradeoff(axes, rows, name)
            axes.set_xlabel(_AXES[name])
        figure.axes[0].set_ylabel("test top-1, %")
        handles, labels = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=6)
        return _svg(figure)


def _tradeoff(axes, rows: pd.DataFrame, name: str) -> None:
    rows = rows.assign(parameters=rows["parameters"] / 1e3)
    axes.locator_params(axis="x", nbins=5)
    for number, kind in enumerate(kinds_in_order(rows["kind"])):
        part = rows[rows["kind"] == kind]
        errors = part["test_top1_std"].fillna(0)
        style = {"color": COLOURS[number % len(COLOURS)], "marker": _MARKERS[number % len(_MARKERS)]}
        axes.errorbar(part[name], part["test_top1"], errors, linestyle="none", elinewidth=1, label=kind, **style)
    front = rows[rows[f"front_{name}"]].sort_values([name, "test_top1"])
    axes.plot(front[name], front["test_top1"], color=_INK, linewidth=1, linestyle="--", zorder=0)
    if name == "parameters" and rows[name].max() > 3 * rows[name].min():
        axes.set_xscale("log")
    for model, x, y in list(zip(front["model"], front[name], front["test_top1"], strict=True))[:_LABELLED]:
        if rows["model"].nunique() > 1:
            axes.annotate(model[:24], (x, y), xytext=(4, 4), textcoords="offset points", fontsize=7, color=_INK)


def learning_curves(records: Sequence[Record]) -> str:
    """Training loss and test accuracy of runs that differ in kind and seed: means, and the range of the seeds."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(9, 3.1), layout="constrained")
        loss, accuracy = figure.subplots(1, 2)
        for number, kind in enumerate(kinds_in_order([record.kind for record in records])):
            label = printable(kind)
            colour = COLOURS[number % len(COLOURS)]
            runs = [record for record in records if record.kind == kind]
            _curve(loss, [[epoch.train_loss for epoch in run.epochs] for run in runs], colour, label)
            _curve(accuracy, [[100 * epoch.test_top1 for epoch in run.epochs] for run in runs], colour, label)
        for axes, label in ((loss, "training loss"), (accuracy, "test top-1, %")):
            axes.set_xlabel("epoch")
            axes.set_ylabel(label)
            axes.xaxis.get_major_locator().set_params(integer=True)
        figure.legend(*loss.get_legend_handles_labels(), loc="outside lower center", ncols=6)
        return _svg(figure)


def _curve(axes, runs: list[list[float]], colour: str, label: str) -> None:
    length = max(map(len, runs))
    values = np.array([run + [np.nan] * (length - len(run)) for run in runs])
    epochs = np.arange(1, length + 1)
    axes.plot(
        epochs, np.nanmean(values, 0), color=colour, label=label, marker="o" if length < 10 else None, markersize=3
    )
    if len(runs) > 1:
        axes.fill_between(epochs, np.nanmin(values, 0), np.nanmax(values, 0), color=colour, alpha=0.18, linewidth=0)


def _svg(figure: Figure) -> str:
    figure.patch.set_alpha(0)
    for axes in figure.axes:
        axes.patch.set_alpha(0)
        axes.tick_params(colors=_INK)
        axes.xaxis.label.set_color(_INK)
        axes.yaxis.label.set_color(_INK)
        for spine in axes.spines.values():
            spine.set_color(_INK)
    for legend in figure.legends:
        for text in legend.get_texts():
            text.set_color(_INK)
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return buffer.getvalue()
