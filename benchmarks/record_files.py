"""Records in files: one a file while runs write them, one a line of ``RECIPE.jsonl`` once they are collected.

Either way a record has one path, that of the file of its own: `read_record` and `status_of` find it there or, by the
hash in its name, as a line of a file beside.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import chain, count
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from metric_zoo.benchmarks.record import SCHEMA_VERSION, DamagedRecordError, Record, record_key, record_path
from metric_zoo.benchmarks.schema import MAX_BYTES, first_problem
from metric_zoo.benchmarks.tasks import get_task
from metric_zoo.errors import MetricZooError, RecordError
from metric_zoo.files import replacing
from metric_zoo.reading import decoded, parse_json, read_lines, read_text
from metric_zoo.text import told

LINES = ".jsonl"
"""Ending of a file with a record a line."""


@dataclass(frozen=True)
class Entry:
    """What a file, or one line of it, holds: a record, or why it is none.

    Attributes:
        file: where it lies.
        line: its number from 1; None for a file of its own.
        content: the record, or what is wrong.
        data: the JSON, keys that the schema does not know included; None where there is none.
    """

    file: Path
    line: int | None
    content: Record | RecordError
    data: dict[str, Any] | None = None

    @property
    def place(self) -> str:
        """For a reader: ``digits.jsonl, line 3``."""
        return _place(self.file, self.line)

    @property
    def record(self) -> Record:
        """Raises: RecordError: naming the place and what is wrong there."""
        if isinstance(self.content, RecordError):
            raise self.content
        return self.content

    @property
    def ids(self) -> set[str]:
        """The hashes that a path may name it by; of what this program is too old for, its own word."""
        if isinstance(self.content, Record):
            return {self.content.id, record_key(self.content)}
        return {str(self.data.get("id"))} if self.data else set()

    @property
    def path(self) -> Path:
        """That of the record's own file, whether or not it has one. Raises: RecordError: if there is no record."""
        if self.line is None:
            return self.file
        record = self.record
        return record_path(self.file.parent, record.model, record.kind, record.seed, record.id)

    @property
    def is_damaged(self) -> bool:
        """Whether this can be a record for no program."""
        return isinstance(self.content, DamagedRecordError)


def entries(path: Path) -> list[Entry]:
    """What a file holds: one record, or one a line where its name ends in ``.jsonl``."""
    if path.suffix != LINES:
        return [_entry(path, None, partial(read_text, path, MAX_BYTES))]
    try:
        lines = list(read_lines(path, MAX_BYTES))
    except OSError as error:
        return [Entry(path, None, RecordError(f"{path} cannot be read: {told(error)}"))]
    return [_entry(path, number, partial(decoded, line, MAX_BYTES)) for number, line in lines]


def _place(file: Path, line: int | None) -> str:
    return f"{file}" if line is None else f"{file}, line {line}"


def _entry(file: Path, line: int | None, text: Callable[[], str]) -> Entry:
    place, data = _place(file, line), None
    try:
        data = _object(text, place)
        return Entry(file, line, _record(data, place), data)
    except RecordError as error:
        return Entry(file, line, error, data)


def _object(text: Callable[[], str], place: str) -> dict[str, Any]:
    try:
        data = parse_json(text())
    except OSError as error:
        raise RecordError(f"{place} cannot be read: {told(error)}") from None
    except ValueError as error:
        raise DamagedRecordError(f"{place} cannot be read as JSON: {told(error)}") from None
    if not isinstance(data, dict):
        raise DamagedRecordError(f"{place} is not a record: it has no 'schema_version'")
    return data


def _record(data: dict[str, Any], place: str) -> Record:
    version = data.get("schema_version")
    if not isinstance(version, int) or isinstance(version, bool):
        raise DamagedRecordError(f"{place} is not a record: it has no 'schema_version'")
    if version > SCHEMA_VERSION:
        raise RecordError(f"{place} has schema version {version}, this program reads up to {SCHEMA_VERSION}: upgrade")
    if isinstance(data.get("task"), str):
        _check_task(data["task"], place)
    try:
        record = Record.model_validate(data)
        json.dumps(data, allow_nan=False)  # of keys that the schema does not know
    except ValidationError as error:
        raise DamagedRecordError(f"{place} breaks the schema: {first_problem(error)}") from None
    except ValueError as error:
        raise DamagedRecordError(f"{place} holds what JSON cannot: {told(error)}") from None
    return record


def _check_task(task: str, place: str) -> None:
    """A record of a task that is not installed here is one elsewhere."""
    try:
        get_task(task)
    except MetricZooError as error:
        raise RecordError(f"{place} is of a task that is not installed: {error}") from None


def read_record(path: Path) -> Record:
    """Read and validate one record: a file, or a line of a file beside it.

    Raises:
        RecordError: naming the place and what is wrong there; DamagedRecordError if it can be no record.
    """
    return (collected(path) or entries(path)[0]).record


def collected(path: Path) -> Entry | None:
    """The line that is in place of a file; None where the file is there, or there is no such line."""
    if os.path.lexists(path) or path.suffix == LINES:
        return None
    for file in collected_files(path.parent):
        with suppress(OSError):
            found = file.stat()
            if entry := _index(file, found.st_mtime_ns, found.st_size).get(path.stem[-12:]):
                return entry
    return None


def collected_files(folder: Path) -> list[Path]:
    """Those of a folder with a record a line; none where there is no folder, or what cannot name one."""
    if not os.path.isdir(folder):
        return []
    return sorted(path for path in folder.glob(f"*{LINES}") if not path.name.startswith("."))


@lru_cache(maxsize=256)
def _index(file: Path, changed: int, size: int) -> dict[str, Entry]:
    """Lines by their hashes; of one run's records one that went well comes first. Of damage it is said once."""
    found: dict[str, Entry] = {}
    for entry in entries(file):
        if entry.is_damaged:
            print(f"note: {entry.content}; it counts as not there", file=sys.stderr, flush=True)
            continue
        for identity in entry.ids:
            if identity not in found or (isinstance(entry.content, Record) and entry.content.status == "ok"):
                found[identity] = entry
    return found


def write_record(path: Path, record: Record) -> None:
    """Write a file of its own, atomically: a reader sees the whole file or none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        temporary.write_text(record.model_dump_json(indent=2) + "\n", encoding="utf-8")


def keep_record(path: Path, record: Record) -> None:
    """Write the record of a run.

    Raises:
        RecordError: if that is impossible: no fault of the run.
    """
    try:
        write_record(path, record)
    except OSError as error:
        raise RecordError(f"record {path} cannot be written: {told(error)}; then the same command goes on") from None


def status_of(path: Path) -> str | None:
    """Of a record, ``"ok"`` or ``"failed"``; ``"unreadable"`` where what is there may be one for another program or at
    another time; None where none is, or what can be none. Of the last two it is said once why."""
    try:
        found = path.lstat()
    except OSError:
        return _status_of_line(path)
    except ValueError:
        return None
    with suppress(OSError):
        found = path.stat()
    return _status(path, found.st_mtime_ns, found.st_size)


def _status_of_line(path: Path) -> str | None:
    entry = collected(path)
    if entry is None:
        return None
    return entry.content.status if isinstance(entry.content, Record) else _told_unreadable(entry)


@lru_cache(maxsize=2**16)
def _status(path: Path, changed: int, size: int) -> str | None:
    entry = entries(path)[0]
    if entry.is_damaged:
        print(f"note: {entry.content}; it counts as not there", file=sys.stderr, flush=True)
        return None
    return entry.content.status if isinstance(entry.content, Record) else _told_unreadable(entry)


def _told_unreadable(entry: Entry) -> str:
    print(f"note: {entry.content}; its run is left out", file=sys.stderr, flush=True)
    return "unreadable"


def identities(folder: Path) -> set[str]:
    """The hashes that the records of a folder have, or have in their names."""
    lines = (entry for file in collected_files(folder) for entry in entries(file))
    return {path.stem[-12:] for path in folder.glob("*.json")}.union(*(entry.ids for entry in lines))


def readable(paths: Iterable[Path]) -> list[Entry]:
    """The records of those files, or of their lines, that are some; of the others it is said why not.

    Raises:
        RecordError: for a file that is missing: a mistake of whoever named it.
    """
    found = []
    for path in paths:
        line = collected(path)
        if line is None and not os.path.lexists(path):
            raise RecordError(f"{path} does not exist")
        found += [line] if line else entries(path)
    for entry in found:
        if not isinstance(entry.content, Record):
            print(f"note: {entry.content}; left out", file=sys.stderr, flush=True)
    return [entry for entry in found if isinstance(entry.content, Record)]


def free_name(path: Path) -> Path:
    """Beside a damaged file, one that none has yet."""
    names = chain([f"{path.name}.damaged"], (f"{path.name}.damaged-{number}" for number in count(2)))
    return next(path.with_name(name) for name in names if not os.path.lexists(path.with_name(name)))


def set_aside(path: Path) -> None:
    """Rename what is no record, so that one can take its place; to a name that is free."""
    kept = free_name(path)
    path.rename(kept)
    print(f"note: {path} is {kept.name} now, its run is done again", file=sys.stderr, flush=True)
