"""Take a record into a folder of results, if it can be true and says the same as its own network."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path

from metric_zoo.benchmarks.record import Record, read_record, record_key, record_path, write_record
from metric_zoo.benchmarks.tasks import get_task
from metric_zoo.errors import MetricZooError, RecordError
from metric_zoo.leaderboards.cells import printable
from metric_zoo.leaderboards.collect import collect, read_sound
from metric_zoo.leaderboards.soundness import is_marked

_GFLOPS_TOLERANCE = 1e-6


def submit(paths: list[Path], to: Path, allow_changed: bool = False, rebuild: bool = True) -> list[Path]:
    """Copy records under their canonical names, all of them or none.

    Args:
        paths: the records.
        to: folder of results.
        allow_changed: take records whose source was not a clean commit; boards mark them.
        rebuild: build each network from its record and count its parameters and GFLOPs.

    Returns:
        The new files; a record that is there already, equal in every byte of its content, is none.

    Raises:
        RecordError: naming every record that is refused, and why.
    """
    taken: dict[Path, Record] = {}
    known = _fingerprints(to)
    problems = []
    for path in paths:
        record = read_sound(path)
        if isinstance(record, str):
            problems.append(f"{printable(str(path))}: {printable(record, 300)}")
            continue
        target = record_path(to, record.model, record.kind, record.seed, record_key(record))
        found = [*_refusals(record, allow_changed, known), *_conflicts(record, target, taken)]
        if not found and rebuild:
            found += recounted(record)
        problems += [f"{printable(str(path))}: {printable(problem, 300)}" for problem in found]
        taken[target] = record
    if problems:
        raise RecordError("refused: " + "; ".join(problems))
    new = {target: record for target, record in taken.items() if not target.exists()}
    _write(new)
    return list(new)


def _write(new: dict[Path, Record]) -> None:
    """All or none."""
    try:
        for target, record in new.items():
            write_record(target, record)
    except OSError as error:
        for target in new:
            target.unlink(missing_ok=True)
        raise MetricZooError(f"{target} cannot be written: {error.strerror}") from None


def _fingerprints(folder: Path) -> dict[str, str]:
    """Of the data of the results so far, by name."""
    if not folder.is_dir() or not any(folder.rglob("*.json")):
        return {}
    return {_data(r): r.dataset.fingerprint for r in collect(folder).records if r.dataset is not None}


def _data(record: Record) -> str:
    """Which data, as a recipe names them: what is cut from pictures is other data than the pictures."""
    named, keys = record.section("data"), get_task(record.task).data_keys
    return json.dumps([record.task, record.dataset.name, {key: named.get(key) for key in keys}])


def _refusals(record: Record, allow_changed: bool, known: dict[str, str]) -> list[str]:
    if record.status != "ok":
        return [f"the run failed ({record.failure.type})"]
    needed = ["gflops", "inference", *get_task(record.task).needs]
    missing = [name for name in needed if getattr(record, name) is None]
    if missing:
        return [f"lacks {', '.join(missing)}, without which it cannot be checked"]
    if known.get(_data(record), record.dataset.fingerprint) != record.dataset.fingerprint:
        return [
            f"its data {record.dataset.name!r} are not those of the results so far (another fingerprint; a "
            "folder's is of contents now, and was of names and sizes)"
        ]
    if is_marked(record) and not allow_changed:
        return ["its source was not a clean commit: allow it with --allow-changed, and boards will mark it"]
    return []


def _conflicts(record: Record, target: Path, taken: dict[Path, Record]) -> list[str]:
    if target in taken:
        return [f"is of the same run as another one, {record.id}"]
    if target.exists() and read_record(target) != record:
        return [f"{target} is of the same run and says otherwise"]
    return []


def recounted(record: Record) -> list[str]:
    """Build a record's network again, without weights or memory, and compare its numbers of parameters and operations.

    The only place where leaderboards need torch: a stranger's figures are to be checked, not believed. Nor is a
    stranger's configuration: what could name a file or a download is refused, and the network is built on torch's meta
    device, whatever size it says it has.
    """
    if not record.learner.is_rebuilt:
        return []
    if suspicious := _suspicious(record):
        return [f"its configuration holds {suspicious}, which is not built for strangers"]
    import torch

    from metric_zoo.benchmarks.measure import count_parameters, gflops
    from metric_zoo.benchmarks.weights import network_of

    try:
        with torch.device("meta"):
            model = network_of(record)
            ours, operations = count_parameters(model), gflops(model, torch.zeros(1, *record.dataset.image_shape))
    except Exception as error:
        return [f"its network cannot be built again: {type(error).__name__}: {str(error)[:200]}"]
    problems = []
    if ours != record.parameters:
        problems.append(f"parameters are {record.parameters}, its network has {ours}")
    if not math.isclose(operations, record.gflops, rel_tol=_GFLOPS_TOLERANCE):
        problems.append(f"gflops is {record.gflops}, its network needs {operations}")
    return problems


_FETCHES = re.compile("checkpoint|weights|pretrained|cache|url|file|path|dir|hub", re.IGNORECASE)


def _suspicious(record: Record) -> str:
    """An option of model or kind that might be opened or fetched; empty if there is none."""
    if not re.fullmatch(r"[A-Za-z0-9_.-]+", record.model):
        return f"model.name = {record.model!r}"
    for name in ("model", "kind"):
        for key, value in _leaves(record.section(name).get("options")):
            if _FETCHES.search(key) or re.search(r"[/\\:]", value):
                return f"{name}.options.{key} = {value!r}"
    return ""


def _leaves(tree: object, key: str = "") -> Iterator[tuple[str, str]]:
    """Every value of a configuration as text, and the keys that lead to it."""
    if isinstance(tree, dict):
        for name, part in tree.items():
            yield from _leaves(part, f"{key}.{name}".lstrip("."))
    elif isinstance(tree, list):
        for part in tree:
            yield from _leaves(part, key)
    else:
        yield key, str(tree)
