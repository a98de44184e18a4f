"""Learning curves as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from metric_zoo.benchmarks.record import Record
from metric_zoo.benchmarks.record_files import readable
from metric_zoo.benchmarks.tasks import get_task
from metric_zoo.errors import MetricZooError, RecordError


def draw_curves(records: list[Path], out: Path) -> None:
    """Training loss and test scores of one run or several over their epochs.

    Args:
        records: of runs that trained.
        out: the picture; its ending says the format, such as ``.svg`` or ``.png``.

    Raises:
        RecordError: if one is missing, or none has an epoch; what is no record is left out, with a note.
            MetricZooError if such a file cannot be written.
    """
    found = [entry.record for entry in readable(records) if entry.record.epochs]
    if not found:
        raise RecordError(f"none of {len(records)} records has an epoch to draw")
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    draw(found, *figure.subplots(1, 2))
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(out, dpi=150)
    except (OSError, ValueError) as error:
        raise MetricZooError(f"{out} cannot be written: {error}") from None


def draw(records: list[Record], losses: Any, scores: Any) -> None:
    """Onto two axes of matplotlib; a kind has one colour, whatever the seed."""
    kinds = list(dict.fromkeys(_name(record) for record in records))
    for record in records:
        name = _name(record)
        style = {"color": f"C{kinds.index(name) % 10}", "marker": "o", "markersize": 3, "linewidth": 1.2}
        label = name if name not in losses.get_legend_handles_labels()[1] else None
        numbers = [epoch.epoch for epoch in record.epochs]
        losses.plot(numbers, [epoch.train_loss for epoch in record.epochs], label=label, **style)
        scores.plot(numbers, [epoch.test_score for epoch in record.epochs], **style)
    names = {get_task(record.task).main.heading for record in records}
    for axes, title in ((losses, "Training loss"), (scores, " or ".join(sorted(names)))):
        axes.set(title=title, xlabel="Epoch")
        axes.grid(alpha=0.3)
    losses.legend(frameon=False, fontsize=8)


def _name(record: Record) -> str:
    options = ", ".join(f"{name} {value}" for name, value in record.options.items())
    return f"{record.model} {record.kind}" + (f" ({options})" if options else "")
