"""Read a folder of records: what is sound, and what is not and why."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from metric_zoo.benchmarks.record import Record, read_record, record_key
from metric_zoo.errors import RecordError
from metric_zoo.leaderboards.cells import cell_of, printable
from metric_zoo.leaderboards.soundness import contradictions

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
    """All records in ``folder`` and below that can be true.

    Hidden folders are none of ours to read: there the harness keeps checkpoints. Of several records of one run (the
    same configuration, hardware and data) the first counts, the others are problems.

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
        record = _read(path)
        if isinstance(record, str):
            problems.append(Problem(printable(name), printable(record.replace(str(path), "it"), _LONGEST)))
        elif record_key(record) in found:
            problems.append(Problem(printable(name), f"is of the same run as {found[record_key(record)][0]}"))
        else:
            found[record_key(record)] = printable(name), record
    return Collection([record for _, record in found.values()], problems)


def _read(path: Path) -> Record | str:
    """A record, or why it is none that a board can show: one file of a stranger must not cost the others."""
    try:
        record = read_record(path)
        impossible = contradictions(record)
        if record.status == "ok":
            cell_of(record)
    except RecordError as error:
        return str(error)
    except Exception as error:
        return f"cannot be shown: {type(error).__name__}: {error}"
    return f"cannot be true: {'; '.join(impossible)}" if impossible else record


def _is_hidden(path: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(folder).parts)
