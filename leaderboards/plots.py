"""Pictures of a leaderboard, as SVG that reads on light and dark paper."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from metric_zoo.benchmarks.record import Record
from metric_zoo.benchmarks.tasks import Gap, Task, get_task
from metric_zoo.leaderboards.looks import look
from metric_zoo.leaderboards.statistics import FRONTS, score

if TYPE_CHECKING:
    from matplotlib.typing import RcKeyType

# Text stays text, names inside the file follow from its content, and no date: the same records, the same bytes.
_STYLE: dict[RcKeyType, Any] = {
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

_AXES = {"inference": "inference, images/s", "parameters": "parameters, thousands"}
_LABELLED = 12
_NAME = 40
"""Characters: a longer name would leave no room for the axes."""


def tradeoffs(rows: pd.DataFrame) -> str:
    """The main score against throughput, parameters and generalization gap; lines join the points that none beats.

    Args:
        rows: of one group of a leaderboard.
    """
    task = _task_of(rows)
    captions = _AXES if task.gap is None else {**_AXES, "generalization_gap": task.gap.axis}
    shown = [name for name in FRONTS if name in captions]
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(9, 3.1), layout="constrained")
        for axes, name in zip(figure.subplots(1, len(shown), sharey=True), shown, strict=True):
            _tradeoff(axes, rows, name, task.gap)
            axes.set_xlabel(captions[name])
        figure.axes[0].set_ylabel(task.main.axis)
        handles, labels = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=6)
        return _svg(figure)


def _task_of(rows: pd.DataFrame) -> Task:
    return get_task(rows["task"].iloc[0])


def _tradeoff(axes, rows: pd.DataFrame, name: str, gap: Gap | None) -> None:
    rows = rows.assign(parameters=rows["parameters"] / 1e3, score=score(rows), deviation=score(rows, "_std").fillna(0))
    axes.locator_params(axis="x", nbins=5)
    for key, part in rows.groupby("kind"):
        kind = str(key)
        style = {"linestyle": "none", "elinewidth": 1, "label": kind[:_NAME], **look(kind)}
        axes.errorbar(part[name], part["score"], part["deviation"], **style)
    front = rows.loc[rows[f"front_{name}"]].sort_values([name, "score"])
    axes.plot(front[name], front["score"], color=_INK, linewidth=1, linestyle="--", zorder=0)
    if name in _AXES or (gap is not None and gap.is_ratio):
        _spread_out(axes, rows[name])
    for model, x, y in list(zip(front["model"], front[name], front["score"], strict=True))[:_LABELLED]:
        if rows["model"].nunique() > 1:
            axes.annotate(model[:24], (x, y), xytext=(4, 4), textcoords="offset points", fontsize=7, color=_INK)


def _spread_out(axes, values: pd.Series) -> None:
    """A logarithmic axis where one picture has small and large ones; around 0 it is linear."""
    largest, positive = values.abs().max(), values.abs()[values != 0]
    if len(positive) and largest > 10 * positive.min():
        axes.set_xscale("symlog", linthresh=float(positive.min()))
        axes.xaxis.set_major_formatter(_plain_number)


def _plain_number(value: float, position: int) -> str:
    """Powers as mathematics would be set literally, since nothing is parsed."""
    return f"{value:,g}"


def over_kernels(rows: pd.DataFrame) -> str:
    """Main score and generalization gap against the size of the kernel, a line for every convolution.

    Args:
        rows: of one group of a leaderboard.
    """
    task = _task_of(rows)
    shown = {task.main.name: task.main.axis}
    if task.gap is not None:
        shown["generalization_gap"] = task.gap.axis
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(9, 3.4), layout="constrained")
        pairs = list(zip(figure.subplots(1, len(shown), squeeze=False)[0], shown, strict=True))
        seen: Counter[str] = Counter()
        for key, part in rows.dropna(subset="kernel_size").groupby(["kind", "options"]):
            kind, options = cast("tuple[str, str]", key)
            part = part.sort_values("kernel_size")
            style = {**look(kind), "linestyle": _DASHES[seen[kind] % len(_DASHES)], "markersize": 4}
            seen[kind] += 1
            for axes, name in pairs:
                axes.plot(part["kernel_size"], part[name], label=_short(kind, options), **style)
        for axes, name in pairs:
            if name == "generalization_gap" and task.gap is not None and task.gap.is_ratio:
                axes.set_yscale("symlog", linthresh=1.0)
                axes.yaxis.set_major_formatter(_plain_number)
            axes.set_xscale("log")
            sizes = sorted(set(rows["kernel_size"].dropna().astype(int)))
            axes.set_xticks(sizes, map(str, sizes))
            axes.minorticks_off()
            axes.set_xlabel("kernel, pixels a side")
            axes.set_ylabel(shown[name])
        figure.legend(*pairs[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
        return _svg(figure)


def _tradeoffs_shown(task: Task) -> str:
    quantity = task.main.quantity or task.main.short
    against = ["inference throughput", "parameters"] + ["generalization gap"] * (task.gap is not None)
    listed = f"{', '.join(against[:-1])} and {against[-1]}"
    return f"{quantity[:1].upper()}{quantity[1:]} on the test images against {listed}; the table has every figure."


def _kernels_shown(task: Task) -> str:
    gap = f" and {task.gap.axis}" if task.gap is not None else ""
    return f"{task.main.title}{gap} against the size of the kernel."


@dataclass(frozen=True)
class Plot:
    """A picture of a group's rows.

    Attributes:
        suffix: of its file's name.
        draw: from the rows to SVG.
        shows: what it shows, by the rows' task.
        fits: whether it says something about the rows.
    """

    suffix: str
    draw: Callable[[pd.DataFrame], str]
    shows: Callable[[Task], str]
    fits: Callable[[pd.DataFrame], bool] = lambda rows: True


PLOTS = (
    Plot("", tradeoffs, _tradeoffs_shown),
    Plot("-kernel", over_kernels, _kernels_shown, lambda rows: rows["kernel_size"].nunique() > 1),
)
"""Of every group; the first stands on the overview, too."""


def _short(kind: str, options: str) -> str:
    """A legend has no room for more than what the published tables name."""
    told = [option for option in options.split(", ") if option.startswith("eps_omega=")]
    return ", ".join([kind, *told])[:_NAME]


_DASHES = ("-", "--", ":", "-.")


def learning_curves(cells: Sequence[tuple[str, str, list[Record]]]) -> str:
    """Training loss and test scores over the epochs: of every cell the mean of its runs, and their range.

    Args:
        cells: kind, name for the legend, and runs that differ in their seed alone.
    """
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(9, 3.1), layout="constrained")
        loss, quality = figure.subplots(1, 2)
        seen: Counter[str] = Counter()
        for kind, name, runs in cells:
            style = {"color": look(kind)["color"], "linestyle": _DASHES[seen[kind] % len(_DASHES)]}
            seen[kind] += 1
            _curve(loss, [[epoch.train_loss for epoch in run.epochs] for run in runs], style, name[:60])
            _curve(quality, [[epoch.test_score for epoch in run.epochs] for run in runs], style, name[:60])
        score_label = get_task(cells[0][2][0].task).main.axis
        for axes, label in ((loss, "training loss"), (quality, score_label)):
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
