"""Read a folder of records."""

from __future__ import annotations

from pathlib import Path

from metric_zoo.benchmarks.record import Record, read_record
from metric_zoo.errors import RecordError


def collect(folder: Path) -> list[Record]:
    """All records in ``folder`` and below, in the order of their paths. Hidden folders are none of ours to read: there
    the harness keeps checkpoints.

    Raises:
        RecordError: if there are none, if some are damaged (each is named), or if two are of the same run.
    """
    paths = sorted(p for p in folder.rglob("*.json") if p.is_file() and not _is_hidden(p, folder))
    if not paths:
        raise RecordError(f"{folder} holds no records (*.json): make some with 'metric-zoo bench run digits --out DIR'")
    records: dict[str, tuple[Path, Record]] = {}
    problems = []
    for path in paths:
        try:
            record = read_record(path)
        except RecordError as error:
            problems.append(str(error))
            continue
        if record.id in records:
            problems.append(f"{path} and {records[record.id][0]} are records of the same run {record.id}")
        records[record.id] = path, record
    if problems:
        raise RecordError("; ".join(problems[:5]) + (f"; and {len(problems) - 5} more" if len(problems) > 5 else ""))
    return [record for _, record in records.values()]


def _is_hidden(path: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(folder).parts)
