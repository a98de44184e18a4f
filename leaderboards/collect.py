"""Read a folder of records: what is sound, and what is not and why."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from metric_zoo.benchmarks.record import Record, read_record
from metric_zoo.errors import RecordError

_LONGEST = 300


@dataclass(frozen=True)
class Problem:
    """A file that is left out: its path below the folder, and the reason."""

    file: str
    reason: str


@dataclass(frozen=True)
class Collection:
    """The sound records of a folder in the order of their paths, and its problems."""

    records: list[Record]
    problems: list[Problem]


def collect(folder: Path) -> Collection:
    """All records in ``folder`` and below.

    Hidden folders are none of ours to read: there the harness keeps checkpoints.
    Of several records of one run the first counts, the others are problems.

    Raises:
        RecordError: if there is no file that could be one.
    """
    paths = sorted(p for p in folder.rglob("*.json") if p.is_file() and not _is_hidden(p, folder))
    if not paths:
        raise RecordError(f"{folder} holds no records (*.json): make some with 'metric-zoo bench run digits --out DIR'")
    found: dict[str, tuple[str, Record]] = {}
    problems = []
    for path in paths:
        name = path.relative_to(folder).as_posix()
        try:
            record = read_record(path)
        except RecordError as error:
            problems.append(Problem(name, str(error).replace(str(path), "it")[:_LONGEST]))
            continue
        if record.id in found:
            problems.append(Problem(name, f"is of the same run as {found[record.id][0]}"))
        else:
            found[record.id] = name, record
    return Collection([record for _, record in found.values()], problems)


def _is_hidden(path: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(folder).parts)
