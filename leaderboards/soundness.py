"""Whether a record can be true: what follows from its own figures. Needs no torch."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from metric_zoo.benchmarks.hits import unpack_hits
from metric_zoo.benchmarks.recipe_sections import DTYPES
from metric_zoo.benchmarks.record import Record, config_id
from metric_zoo.benchmarks.schema import SPEEDS, Provenance, Throughput
from metric_zoo.benchmarks.tasks import get_task
from metric_zoo.leaderboards.cells import printable


def contradictions(record: Record) -> list[str]:
    """What cannot be, in words; empty for a record that may be true."""
    found = [*_identity(record), *_provenance(record), *(_figures(record) if record.status == "ok" else [])]
    return [printable(problem, 300) for problem in found]


def is_marked(record: Record) -> bool:
    """Whether the source of a record is not a clean commit that others could check out."""
    sources = [record.provenance, *([record.timing] if record.timing else [])]
    return any(source.git_dirty is not False or source.git_sha is None for source in sources)


def _identity(record: Record) -> Iterator[str]:
    if config_id(record.config) != record.id:
        yield f"id is {record.id}, but the configuration's hash is {config_id(record.config)}"
    told = {"recipe": record.recipe, "task": record.task, "seed": record.seed, "processes": record.world_size}
    told["device"] = "cpu" if record.device == "cpu" else "cuda"
    for name, value in told.items():
        if not _same(record.config.get(name), value):
            yield f"{name} is {value!r}, but the configuration says {record.config.get(name)!r}"
    sections = {
        "model": {"name": record.model, "source": record.source, "pretrained": record.weights is not None},
        "kind": {"kind": record.kind, "options": record.options},
    }
    if record.dataset is not None and record.section("data").get("name") not in ("folder", "huggingface"):
        sections["data"] = {"name": record.dataset.name}
    for name, values in sections.items():
        for key, value in values.items():
            if not _same(record.section(name).get(key), value):
                yield f"{name}.{key} is {value!r}, but the configuration says otherwise"


def _same(one: object, other: object) -> bool:
    """Equal and of one type: 0, 0.0 and False would be three runs of one seed."""
    return type(one) is type(other) and one == other


def _provenance(record: Record) -> Iterator[str]:
    for what, source in (("it", record.provenance), ("its timing", record.timing)):
        if source is not None:
            yield from _source(what, source)


# Not the reader's clock: what a board shows must not depend on the day.
_YEARS = range(2020, 2100)


def _source(what: str, source: Provenance) -> Iterator[str]:
    start, end = (datetime.fromisoformat(time) for time in (source.started, source.finished))
    if end < start:
        yield f"{what} ended before it began"
    if start.year not in _YEARS or end.year not in _YEARS:
        yield f"{what} began in {start.year} and ended in {end.year}: a clock was wrong"
    if source.git_sha is not None and not re.fullmatch("[0-9a-f]{40}", source.git_sha):
        yield f"git_sha {source.git_sha!r} is no commit"


def _figures(record: Record) -> Iterator[str]:
    for name, scores in (("train", record.train), ("test", record.test)):
        size = getattr(record.dataset, f"{name}_size")
        assert scores is not None, "the run went well"
        if scores.images != size:
            yield f"{name}: {scores.images} images were scored, the split has {size}"
        yield from (f"{name}: {problem}" for problem in get_task(record.task).contradictions(scores))
    yield from _gap(record)
    parameters = record.parameters
    assert parameters is not None, "the run went well"
    if parameters.heads > parameters.total or parameters.trainable > parameters.total:
        yield "parameters: a part is larger than the total"
    if [epoch.epoch for epoch in record.epochs] != list(range(1, len(record.epochs) + 1)):
        yield "epochs are not numbered 1, 2, ..."
    asked = record.section("train").get("epochs")
    if record.learner.trains and asked != len(record.epochs):
        yield f"{len(record.epochs)} epochs, but the configuration says {asked!r}"
    for name in SPEEDS:
        if (speed := getattr(record, name)) is not None:
            yield from (f"{name}: {problem}" for problem in _speed(speed, record.section("train").get("precision")))
    if record.latency_ms is not None and not 0 < record.latency_ms.p50 <= record.latency_ms.p90:
        yield "latency_ms: p90 is below p50, or p50 is not positive"
    if record.sampling is not None and not max(record.sampling.mean, record.sampling.p99) <= record.sampling.maximum:
        yield "sampling: the maximum is below the mean, or below the 99th percentile"
    yield from _hits(record)


def _gap(record: Record) -> Iterator[str]:
    told, gap, declared = record.generalization_gap, record.defined_gap, get_task(record.task).gap
    if told is None:  # which the schema allows where the task defines none
        return
    if gap is None or declared is None:
        yield f"generalization_gap is {told:.6f}, but for these scores task {record.task!r} defines none"
    elif not math.isclose(gap, told, rel_tol=1e-9, abs_tol=1e-9):
        yield f"generalization_gap is {told:.6f}, but {declared.formula} is {gap:.6f}"


def _speed(speed: Throughput, precision: Any) -> Iterator[str]:
    if speed.dtype != DTYPES.get(precision):
        yield f"dtype {speed.dtype}, but the configuration says precision {precision!r}"
    if not 0 < speed.lower_quartile <= speed.median <= speed.upper_quartile:
        yield "quartiles are not in order, or not positive"
    if speed.repeats < 3 or speed.batch_size < 1:
        yield f"{speed.repeats} repeats of {speed.batch_size} images measure nothing"


def _hits(record: Record) -> Iterator[str]:
    if record.test_hits is None:
        return
    task = get_task(record.task)
    if not task.hits:
        yield f"test_hits: task {record.task!r} has no right answers"
        return
    test = record.test
    assert test is not None, "the run went well"
    try:
        right = int(unpack_hits(record.test_hits, test.images).sum())
    except ValueError as error:
        yield f"test_hits: {error}"
        return
    meant = round(getattr(test, task.hits) * test.images)
    if right != meant:
        yield f"test_hits names {right} right answers, {task.main.short} means {meant}"
