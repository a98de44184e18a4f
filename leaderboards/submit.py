"""Take a record into a folder of results, if it can be true and says the same as its own network."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from metric_zoo.benchmarks.collect import add_records, without_unknown
from metric_zoo.benchmarks.record import Record, record_key, record_path
from metric_zoo.benchmarks.record_files import Entry, entries
from metric_zoo.benchmarks.tasks import get_task
from metric_zoo.errors import RecordError
from metric_zoo.leaderboards.cells import printable
from metric_zoo.leaderboards.collect import collect, record_files, sound
from metric_zoo.leaderboards.soundness import is_marked

_GFLOPS_TOLERANCE = 1e-6


def submit(paths: list[Path], to: Path, allow_changed: bool = False, rebuild: bool = True) -> list[Path]:
    """Copy records into a folder's files of lines, one a recipe; all of them or none.

    Args:
        paths: files of one record each, or of lines.
        to: folder of results.
        allow_changed: take records whose source was not a clean commit; boards mark them.
        rebuild: build each network from its record and count its parameters and GFLOPs.

    Returns:
        The paths of the new records, for `read_record`; a record that is there already, with the same content, is none.

    Raises:
        RecordError: naming every record that is refused, and why.
    """
    taken: dict[str, Entry] = {}
    before = collect(to).records if to.is_dir() and record_files(to) else []
    there = {record_key(record): record for record in before}
    known = _fingerprints(before)
    problems = []
    for entry in (entry for path in paths for entry in entries(path)):
        place, record = printable(entry.place), sound(entry)
        if isinstance(record, str):
            problems.append(f"{place}: {printable(record, 300)}")
            continue
        found = [*_refusals(record, allow_changed, known), *_conflicts(record, there, taken)]
        if not found and rebuild:
            found += recounted(record)
        problems += [f"{place}: {printable(problem, 300)}" for problem in found]
        taken[record_key(record)] = entry
    if problems:
        raise RecordError("refused: " + "; ".join(problems))
    new = {key: without_unknown(entry) for key, entry in taken.items() if key not in there}
    if new:
        add_records(to, new.values())
    return [_path(to, key, entry.record) for key, entry in new.items()]


def _path(folder: Path, key: str, record: Record) -> Path:
    return record_path(folder, record.model, record.kind, record.seed, key)


def _fingerprints(records: Iterable[Record]) -> dict[str, str]:
    """Of the data of the results so far, by name."""
    return {_data(record): record.dataset.fingerprint for record in records if record.dataset is not None}


def _data(record: Record) -> str:
    """Which data, as a recipe names them: what is cut from pictures is other data than the pictures."""
    named, keys = record.section("data"), get_task(record.task).data_keys
    assert record.dataset is not None, "the run went well"
    return json.dumps([record.task, record.dataset.name, {key: named.get(key) for key in keys}])


def _refusals(record: Record, allow_changed: bool, known: dict[str, str]) -> list[str]:
    if record.status != "ok":
        assert record.failure is not None, "a failed record says why"
        return [f"the run failed ({record.failure.type})"]
    needed = ["gflops", "inference", *get_task(record.task).needs]
    missing = [name for name in needed if getattr(record, name) is None]
    if missing:
        return [f"lacks {', '.join(missing)}, without which it cannot be checked"]
    assert record.dataset is not None, "the run went well"
    if known.get(_data(record), record.dataset.fingerprint) != record.dataset.fingerprint:
        return [
            f"its data {record.dataset.name!r} are not those of the results so far (another fingerprint; a "
            "folder's is of contents now, and was of names and sizes)"
        ]
    if is_marked(record) and not allow_changed:
        return ["its source was not a clean commit: allow it with --allow-changed, and boards will mark it"]
    return []


def _conflicts(record: Record, there: dict[str, Record], taken: dict[str, Entry]) -> list[str]:
    key = record_key(record)
    if key in taken:
        return [f"is of the same run as another one, {record.id}"]
    if there.get(key, record) != record:
        return [f"a record of the results, {record.id}, is of the same run and says otherwise"]
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
            assert record.dataset is not None, "the run went well"
            ours, operations = count_parameters(model), gflops(model, torch.zeros(1, *record.dataset.image_shape))
    except Exception as error:
        return [f"its network cannot be built again: {type(error).__name__}: {str(error)[:200]}"]
    problems = []
    if ours != record.parameters:
        problems.append(f"parameters are {record.parameters}, its network has {ours}")
    if record.gflops is None or not math.isclose(operations, record.gflops, rel_tol=_GFLOPS_TOLERANCE):
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
