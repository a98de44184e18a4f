"""Read a folder of records: what is sound, and what is not and why."""

from __future__ import annotations

import os
from bisect import bisect_left
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from metric_zoo.benchmarks.record import Record, read_record, record_key
from metric_zoo.errors import RecordError
from metric_zoo.leaderboards.cells import cell_of, printable
from metric_zoo.leaderboards.soundness import contradictions

_LONGEST = 300
_T = TypeVar("_T")


@dataclass(frozen=True)
class Problem:
    """A file that is left out: its path below the folder, and the reason."""

    file: str
    reason: str


@dataclass(frozen=True)
class Collection:
    """The sound records of a folder in the order of their paths, the names of their files, and its problems."""

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
    same configuration, hardware and data) the first counts, the others are problems.

    Raises:
        RecordError: if there is no file that could be one.
    """
    paths = sorted(p for p in folder.rglob("*.json") if not os.path.isdir(p) and not _is_hidden(p, folder))
    if not paths:
        raise RecordError(f"{folder} holds no records (*.json): make some with 'metric-zoo bench run digits --out DIR'")
    found: dict[str, tuple[str, Record]] = {}
    problems = []
    for path in paths:
        name = path.relative_to(folder).as_posix()
        record = read_sound(path)
        if isinstance(record, str):
            problems.append(Problem(printable(name), printable(record, _LONGEST)))
        elif record_key(record) in found:
            problems.append(Problem(printable(name), f"is of the same run as {found[record_key(record)][0]}"))
        else:
            found[record_key(record)] = printable(name), record
    return Collection([record for _, record in found.values()], problems, [name for name, _ in found.values()])


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


def read_sound(path: Path) -> Record | str:
    """A record, or why it is none that a board can show: one file of a stranger must not cost the others."""
    try:
        record = read_record(path)
        impossible = contradictions(record)
        if record.status == "ok":
            cell_of(record)
    except RecordError as error:
        return str(error).replace(str(path), "it")
    except Exception as error:
        return _unshowable(error)
    return f"cannot be true: {'; '.join(impossible)}" if impossible else record


def _is_hidden(path: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(folder).parts)
