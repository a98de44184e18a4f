"""A record for reading."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from metric_zoo.benchmarks.recipe_sections import kind_told
from metric_zoo.benchmarks.record import Record
from metric_zoo.benchmarks.record_files import LINES, read_record, readable
from metric_zoo.benchmarks.schema import SPEEDS, Throughput
from metric_zoo.benchmarks.tasks import get_task
from metric_zoo.errors import RecordError
from metric_zoo.text import columns

_BARS = "▁▂▃▄▅▆▇█"


def show_record(path: Path) -> str:
    """Figures, curves and provenance of one record, or of every one of a file of lines.

    Raises:
        RecordError: if it is none.
    """
    found = [read_record(path)] if path.suffix != LINES else [entry.record for entry in readable([path])]
    if not found:
        raise RecordError(f"{path} holds no record")
    return "\n\n".join(map(_shown, found))


def _shown(record: Record) -> str:
    kind = kind_told(record.kind, record.options, record.section("kind"))
    title = f"{record.model} ({record.source}), {kind}, seed {record.seed}: {record.status}"
    return "\n".join([title, "", columns([list(line) for line in _lines(record)])])


def _lines(record: Record) -> Iterator[tuple[str, str]]:
    task = get_task(record.task)
    if record.failure is not None:
        yield "failure", f"{record.failure.type}: {record.failure.message}"
    if record.dataset is not None:
        yield "data", f"{record.dataset.name}, {record.dataset.train_size:,} + {record.dataset.test_size:,} images"
    for name, scores in (("train", record.train), ("test", record.test)):
        if scores is not None:
            yield name, task.told(scores)
    if record.generalization_gap is not None and task.gap is not None:
        yield "generalization gap", task.gap.told(record.generalization_gap)
    if record.searched:
        tried = ", ".join(
            f"{rate}: {'not finite' if loss is None else f'{loss:.4g}'}" for rate, loss in record.searched.items()
        )
        yield "learning rate", f"{record.lr:g}, of held-out losses {tried}"
    for name, value in record.robustness.items():
        yield f"test with {name}", f"{task.main.short} {task.main.text(task.robust_score(record.test, value))}"
    if record.parameters is not None:
        heads = f", {record.parameters.heads:,} in sampling heads" if record.parameters.heads else ""
        yield "parameters", f"{record.parameters.total:,}{heads}"
    if record.gflops is not None:
        yield "GFLOPs", f"{record.gflops:.3f}"
    if record.sampling is not None:
        yield "sampling", record.sampling.told
    for name, words in SPEEDS.items():
        throughput = getattr(record, name)
        if throughput is not None:
            yield words.lower(), _throughput(throughput)
    if record.latency_ms is not None:
        p99 = "" if record.latency_ms.p99 is None else f", p99 {record.latency_ms.p99:.2f}"
        yield "latency, ms", f"p50 {record.latency_ms.p50:.2f}, p90 {record.latency_ms.p90:.2f}{p99}"
    for name, memory in (("peak memory", record.peak_memory_mib), ("activations", record.activation_memory_mib)):
        if memory is not None:
            yield name, f"{memory:,.1f} MiB"
    if record.epochs:
        yield "training loss", _curve([epoch.train_loss for epoch in record.epochs])
        yield task.main.axis, _curve([epoch.test_score for epoch in record.epochs])
    yield "took", f"{record.wall_seconds:,.0f} s on {record.device}, {record.world_size} processes"
    yield "versions", ", ".join(f"{name} {version}" for name, version in record.provenance.versions.items())
    dirty = " and changes" if record.provenance.git_dirty else ""
    yield "commit", f"{record.provenance.git_sha or 'unknown'}{dirty}"
    yield "command", record.provenance.command


def _throughput(throughput: Throughput) -> str:
    quartiles = f"{throughput.lower_quartile:,.0f} to {throughput.upper_quartile:,.0f}"
    energy = "" if throughput.joules_per_image is None else f", {throughput.joules_per_image:.3g} J each"
    how = f"batches of {throughput.batch_size}, {throughput.dtype}{energy}"
    return f"{throughput.median:,.0f} images/s ({quartiles}), {how}"


def _curve(values: list[float]) -> str:
    """A bar for every epoch between the lowest and the highest, and the two ends."""
    low, high = min(values), max(values)
    step = (high - low) / (len(_BARS) - 1) or 1.0
    return f"{''.join(_BARS[round((v - low) / step)] for v in values)}  {values[0]:.3f} to {values[-1]:.3f}"
