"""Pictures of a leaderboard, as SVG that reads on light and dark paper."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Sequence

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from metric_zoo.benchmarks.record import Record
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
_INK = "#5b6675"
"""Of text and axes; `_svg` makes it lighter on a dark page."""
_DARK_INK = "#9aa6b6"
_COLOURS = ("#3b7dd8", "#e08a1e", "#2e9e6b", "#b055c4", "#d6456b", "#1ba3b8", "#8a7a2c", "#6b6fd6")
_MARKERS = "osD^vP*X"

_AXES = {
    "inference": "inference, images/s",
    "parameters": "parameters, thousands",
    "generalization_gap": "generalization gap, points",
}
_LABELLED = 12


_KNOWN = ("standard", "deformable", "shifted", "metric", "modulated", "geodesic", "active", "dilated")


def _look(kind: str) -> dict[str, str]:
    """Colour and marker of a kind: the same in every picture."""
    number = _KNOWN.index(kind) if kind in _KNOWN else sum(kind.encode()) % len(_KNOWN)
    return {"color": _COLOURS[number], "marker": _MARKERS[number]}


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
    for kind, part in rows.groupby("kind"):
        errors = part["test_top1_std"].fillna(0)
        axes.errorbar(part[name], part["test_top1"], errors, linestyle="none", elinewidth=1, label=kind, **_look(kind))
    front = rows[rows[f"front_{name}"]].sort_values([name, "test_top1"])
    axes.plot(front[name], front["test_top1"], color=_INK, linewidth=1, linestyle="--", zorder=0)
    if name == "parameters" and rows[name].max() > 3 * rows[name].min():
        axes.set_xscale("log")
    for model, x, y in list(zip(front["model"], front[name], front["test_top1"], strict=True))[:_LABELLED]:
        if rows["model"].nunique() > 1:
            axes.annotate(model[:24], (x, y), xytext=(4, 4), textcoords="offset points", fontsize=7, color=_INK)


_DASHES = ("-", "--", ":", "-.")


def learning_curves(cells: Sequence[tuple[str, str, list[Record]]]) -> str:
    """Training loss and test accuracy over the epochs: of every cell the mean of its runs, and their range.

    Args:
        cells: kind, name for the legend, and runs that differ in their seed alone.
    """
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(9, 3.1), layout="constrained")
        loss, accuracy = figure.subplots(1, 2)
        seen: Counter[str] = Counter()
        for kind, name, runs in cells:
            style = {"color": _look(kind)["color"], "linestyle": _DASHES[seen[kind] % len(_DASHES)]}
            seen[kind] += 1
            _curve(loss, [[epoch.train_loss for epoch in run.epochs] for run in runs], style, name[:60])
            _curve(accuracy, [[100 * epoch.test_top1 for epoch in run.epochs] for run in runs], style, name[:60])
        for axes, label in ((loss, "training loss"), (accuracy, "test top-1, %")):
            axes.set_xlabel("epoch")
            axes.set_ylabel(label)
            axes.xaxis.get_major_locator().set_params(integer=True)
        figure.legend(*loss.get_legend_handles_labels(), loc="outside lower center", ncols=4)
        return _svg(figure)


def _curve(axes, runs: list[list[float]], style: dict[str, str], label: str) -> None:
    length = max(map(len, runs))
    values = np.array([run + [np.nan] * (length - len(run)) for run in runs])
    epochs = np.arange(1, length + 1)
    axes.plot(epochs, np.nanmean(values, 0), label=label, **style, marker="o" if length < 10 else None, markersize=3)
    if len(runs) > 1:
        axes.fill_between(
            epochs, np.nanmin(values, 0), np.nanmax(values, 0), color=style["color"], alpha=0.18, linewidth=0
        )


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
    # One grey cannot be read on both papers: the picture follows the reader's.
    theme = f"<style>:root{{--ink:{_INK}}}@media(prefers-color-scheme:dark){{:root{{--ink:{_DARK_INK}}}}}</style>"
    text = buffer.getvalue().replace(_INK, "var(--ink)")
    return text.replace(" <defs>", f" {theme}\n <defs>", 1)
