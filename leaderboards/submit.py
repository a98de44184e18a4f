"""Take a record into a folder of results, if it can be true and says the same as its own network."""

from __future__ import annotations

import math
from pathlib import Path

from metric_zoo.benchmarks.record import Record, read_record, record_path, write_record
from metric_zoo.errors import RecordError
from metric_zoo.leaderboards.soundness import contradictions, is_marked

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
    problems = []
    for path in paths:
        try:
            record = read_record(path)
        except RecordError as error:
            problems.append(str(error))
            continue
        target = record_path(to, record.model, record.kind, record.seed, record.id)
        found = [*contradictions(record), *_refusals(record, allow_changed), *_conflicts(record, target, taken)]
        if not found and rebuild and record.status == "ok":
            found += recounted(record)
        problems += [f"{path}: {problem}" for problem in found]
        taken[target] = record
    if problems:
        raise RecordError("refused: " + "; ".join(problems))
    new = {target: record for target, record in taken.items() if not target.exists()}
    for target, record in new.items():
        write_record(target, record)
    return list(new)


def _refusals(record: Record, allow_changed: bool) -> list[str]:
    if record.status != "ok":
        return [f"the run failed ({record.failure.type})"]
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
    """Build a record's network again, without weights, and compare its numbers of parameters and operations.

    The only place where leaderboards need torch: a stranger's figures are to be checked, not believed.
    """
    import torch

    from metric_zoo.benchmarks.measure import count_parameters, gflops
    from metric_zoo.benchmarks.weights import network_of

    try:
        model = network_of(record)
        ours, operations = count_parameters(model), gflops(model, torch.zeros(1, *record.dataset.image_shape))
    except Exception as error:
        return [f"its network cannot be built again: {type(error).__name__}: {str(error)[:200]}"]
    problems = []
    if ours != record.parameters:
        problems.append(f"parameters are {record.parameters}, its network has {ours}")
    if record.gflops is not None and not math.isclose(operations, record.gflops, rel_tol=_GFLOPS_TOLERANCE):
        problems.append(f"gflops is {record.gflops}, its network needs {operations}")
    return problems
