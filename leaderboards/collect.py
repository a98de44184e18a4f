"""Read a folder of records: what is sound, and what is not and why."""

from __future__ import annotations

import os
from bisect import bisect_left
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from metric_zoo.benchmarks.record import Record, record_key
from metric_zoo.benchmarks.record_files import LINES, Entry, entries
from metric_zoo.errors import RecordError
from metric_zoo.leaderboards.cells import cell_of, printable
from metric_zoo.leaderboards.soundness import contradictions

_LONGEST = 300
_T = TypeVar("_T")


@dataclass(frozen=True)
class Problem:
    """A file, or a line of one, that is left out: its path below the folder, and the reason."""

    file: str
    reason: str


@dataclass(frozen=True)
class Collection:
    """The sound records of a folder in the order of their places, the names of these, and its problems."""

    records: list[Record]
    problems: list[Problem]
    files: list[str]

    def only(self, places: Iterable[int]) -> Collection:
        """Some of the records."""
        places = list(places)
        return replace(self, records=[self.records[i] for i in places], files=[self.files[i] for i in places])

    def without(self, place: int, reason: str) -> Collection:
        """One record becomes a problem."""
        others = self.only(i for i in range(len(self.records)) if i != place)
        return replace(others, problems=sorted([*self.problems, Problem(self.files[place], reason)], key=_name))


def _name(problem: Problem) -> str:
    return problem.file


def collect(folder: Path) -> Collection:
    """All records in ``folder`` and below that can be true.

    Hidden folders are none of ours to read: there the harness keeps checkpoints. Of several records of one run (the
    same configuration, hardware and data) the first counts, the others are problems; a record in a file of its own that
    is a line of another file, too, is none.

    Raises:
        RecordError: if there is no file that could be one.
    """
    paths = record_files(folder)
    if not paths:
        raise RecordError(
            f"{folder} holds no records (*.json, *{LINES}): make some with 'metric-zoo bench run digits --out DIR'"
        )
    found: dict[str, tuple[Entry, Record]] = {}
    problems = []
    for entry in sorted((entry for path in paths for entry in entries(path)), key=_path):
        record = sound(entry)
        if isinstance(record, str):
            problems.append(Problem(_below(folder, entry), printable(record, _LONGEST)))
            continue
        first, same = found.setdefault(record_key(record), (entry, record))
        if first is not entry and not (same == record and (first.line is None) != (entry.line is None)):
            problems.append(Problem(_below(folder, entry), f"is of the same run as {_below(folder, first)}"))
    return Collection(
        [record for _, record in found.values()], problems, [_below(folder, entry) for entry, _ in found.values()]
    )


def _path(entry: Entry) -> Path:
    """The order of records, whether they lie in files of their own or in lines."""
    return entry.path if isinstance(entry.content, Record) else entry.file


def record_files(folder: Path) -> list[Path]:
    """All that may hold records, in ``folder`` and below."""
    found = (path for form in ("*.json", f"*{LINES}") for path in folder.rglob(form))
    return sorted(path for path in found if not os.path.isdir(path) and not _is_hidden(path, folder))


def _below(folder: Path, entry: Entry) -> str:
    return printable(replace(entry, file=entry.file.relative_to(folder)).place)


def shown(collection: Collection, show: Callable[[Collection], _T]) -> tuple[_T, Collection]:
    """What ``show`` makes of the records, and those that it could show: one that it fails on must not cost the others.

    It becomes a problem. An error that no record is needed for is raised.
    """
    while True:
        try:
            return show(collection), collection
        except Exception as error:
            place = _culprit(collection, show)
            if place is None:
                raise
            collection = collection.without(place, _unshowable(error))


def _culprit(collection: Collection, show: Callable[[Collection], object]) -> int | None:
    """The last of the fewest records on which ``show`` fails; None if it does without any."""

    def fails(count: int) -> bool:
        try:
            show(collection.only(range(count)))
        except Exception:
            return True
        return False

    fewest = bisect_left(range(len(collection.records)), True, key=fails)
    return fewest - 1 if fewest else None


def _unshowable(error: Exception) -> str:
    """The reason of a file that a stranger made to be stumbled over."""
    return printable(f"cannot be shown: {type(error).__name__}: {error}", _LONGEST)


def sound(entry: Entry) -> Record | str:
    """A record, or why it is none that a board can show: one of a stranger must not cost the others."""
    try:
        record = entry.record
        impossible = contradictions(record)
        if record.status == "ok":
            cell_of(record)
    except RecordError as error:
        return str(error).replace(entry.place, "it")
    except Exception as error:
        return _unshowable(error)
    return f"cannot be true: {'; '.join(impossible)}" if impossible else record


def _is_hidden(path: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(folder).parts)
