"""Collect records: those of one recipe become one file of JSON lines, sorted by id.

The same records make the same bytes, whoever wrote them and in whatever order.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from filelock import FileLock

from metric_zoo.benchmarks.record import Record, record_key
from metric_zoo.benchmarks.record_files import (
    LINES,
    Entry,
    collected,
    collected_files,
    entries,
    free_name,
    write_record,
)
from metric_zoo.errors import MetricZooError, RecordError
from metric_zoo.files import replacing
from metric_zoo.text import told

LOCKS = ".locks"
"""Folder beside the records. A locked file in it says who works on what; the system unlocks it when that process ends,
however it ends."""

Files = dict[Path, list[Entry]]
"""Records by the file of lines that they belong in."""


@dataclass(frozen=True)
class Collected:
    """What `collect_records` did: how many records lie in how many files, and what was left where it is and why."""

    records: int
    files: list[Path]
    problems: list[str]


def collect_records(folder: Path) -> Collected:
    """Move the records of a folder into one file of lines per recipe.

    A damaged or unreadable file stays. A file with a damaged line is kept beside, as it was.

    Args:
        folder: of records in files of their own, in files of lines, or both; what is below it is left alone.

    Raises:
        RecordError: if there is none, two of one run differ, or a line needs a newer program: nothing has changed
            then. MetricZooError if the files cannot be written.
    """
    with _alone(folder):
        own = {path: path.stat() for path in sorted(folder.glob("*.json")) if path.is_file()}
        found = [entry for path in [*own, *collected_files(folder)] for entry in entries(path)]
        if not found:
            raise RecordError(f"{folder} holds no records (*.json, *{LINES})")
        problems = [str(entry.content) for entry in found if not isinstance(entry.content, Record)]
        files = _by_file(folder, found)
        _store(folder, files)
        _remove(own, {entry.file for entry in found if isinstance(entry.content, Record)})
    return Collected(sum(map(len, files.values())), list(files), problems)


def _remove(own: dict[Path, os.stat_result], collected: set[Path]) -> None:
    """Files whose record is a line now; one that was written meanwhile stays."""
    for path in own.keys() & collected:
        with suppress(OSError):
            now = path.stat()
            if (now.st_mtime_ns, now.st_size) == (own[path].st_mtime_ns, own[path].st_size):
                path.unlink()


def add_records(folder: Path, new: Iterable[Entry]) -> None:
    """Add records to a folder's files of lines: all or none.

    Raises:
        RecordError: if one is there and says otherwise. MetricZooError if the files cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with _alone(folder):
        _store(folder, _by_file(folder, [*_collected_entries(folder), *new]))


def replace_record(path: Path, record: Record) -> None:
    """Write a record again where it is: into its own file, or into its line.

    Raises:
        RecordError: if that is impossible.
    """
    try:
        if os.path.lexists(path):
            write_record(path, record)
        else:
            _edit_line(path, [entry_of(path, record)])
    except (OSError, MetricZooError) as error:
        raise RecordError(f"record {path} cannot be written: {told(error)}; then the same command goes on") from None


def remove_record(path: Path) -> None:
    """Remove a record: its own file, or its line. Raises: OSError, MetricZooError: if that is impossible."""
    if os.path.lexists(path):
        path.unlink()
    else:
        _edit_line(path, [])


def entry_of(path: Path, record: Record) -> Entry:
    """Of a record that is to be written."""
    return Entry(path, None, record, record.model_dump(mode="json"))


def without_unknown(entry: Entry) -> Entry:
    """Without the keys that the schema does not know, which in a stranger's record may hold anything."""
    return replace(entry, data=_known(entry.data, entry.record.model_dump(mode="json")))


def _known(data: Any, like: Any) -> Any:
    if isinstance(data, dict) and isinstance(like, dict):
        return {name: _known(part, like[name]) for name, part in data.items() if name in like}
    if isinstance(data, list) and isinstance(like, list):
        return [_known(*pair) for pair in zip(data, like, strict=True)]
    return data


def _edit_line(path: Path, new: list[Entry]) -> None:
    """Put others in the place of the one that a path names."""
    folder = path.parent
    with _alone(folder):
        old = collected(path)
        others = [entry for entry in _collected_entries(folder) if old is None or entry.place != old.place]
        _store(folder, _by_file(folder, [*others, *new]))


def _collected_entries(folder: Path) -> list[Entry]:
    return [entry for file in collected_files(folder) for entry in entries(file)]


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """While this process alone writes files of lines: two that read, change and write would lose records."""
    try:
        (folder / LOCKS).mkdir(exist_ok=True)
        lock = FileLock(folder / LOCKS / "collect")
        lock.acquire()
    except OSError as error:
        raise MetricZooError(f"{folder} is no folder that records can be written in: {told(error)}") from None
    try:
        yield
    finally:
        lock.release()


def file_of(folder: Path, recipe: str) -> Path:
    """Where the records of a recipe are lines."""
    words = re.sub(r"[^A-Za-z0-9._-]+", "_", recipe).strip("._")[:120]
    return folder / f"{words or 'records'}{LINES}"


def _by_file(folder: Path, found: Iterable[Entry]) -> Files:
    """Every record once, in the order of ids.

    Raises:
        RecordError: if two of one run differ, or a line needs a newer program.
    """
    runs: dict[str, Entry] = {}
    for entry in found:
        if isinstance(entry.content, Record):
            key = record_key(entry.content)
            known = runs.get(key, entry)
            if known.content != entry.content:
                raise RecordError(f"{known.place} and {entry.place} are of the same run and differ: remove one of them")
            runs[key] = min(known, entry, key=_line)
        elif entry.file.suffix == LINES and not entry.is_damaged:
            raise entry.content
    files: Files = defaultdict(list)
    for entry in sorted(runs.values(), key=lambda entry: (entry.record.id, _line(entry))):
        files[file_of(folder, entry.record.recipe)].append(entry)
    return dict(sorted(files.items()))


def _line(entry: Entry) -> str:
    """Its JSON with keys in the schema's order, so that whoever wrote it has no part in its bytes."""
    data = _ordered(entry.data, entry.record.model_dump(mode="json"))
    return json.dumps(data, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def _ordered(data: Any, like: Any) -> Any:
    """With the keys of ``like`` first, in their order; others, which a newer schema may know, are kept."""
    if isinstance(data, dict) and isinstance(like, dict):
        names = [*(name for name in like if name in data), *sorted(data.keys() - like.keys())]
        return {name: _ordered(data[name], like.get(name)) for name in names}
    if isinstance(data, list) and isinstance(like, list):
        return [_ordered(*pair) for pair in zip(data, like, strict=True)]
    return data


def _store(folder: Path, files: Files) -> None:
    """Make a folder's files of records these and no others: all, or it stays as it was. What holds no record stays."""
    after = {path: "".join(f"{_line(entry)}\n" for entry in found).encode() for path, found in files.items()}
    ours = [path for path in collected_files(folder) if path in after or _holds_records(path)]
    before = {path: path.read_bytes() for path in ours}
    changed = {path: content for path, content in after.items() if before.get(path) != content}
    gone = [path for path in ours if path not in after]
    try:
        for path in [*changed, *gone]:
            if path in before:
                _keep_damaged(path)
        for path, content in changed.items():
            _put(path, content)
        # Last: whatever ends this process before, no record is in fewer files than it was.
        for path in gone:
            _put(path, None)
    except BaseException as error:
        for path in [*changed, *gone]:
            with suppress(OSError):
                _put(path, before.get(path))
        if isinstance(error, OSError):
            raise MetricZooError(f"{path} cannot be written: {told(error)}") from None
        raise


def _holds_records(path: Path) -> bool:
    return any(isinstance(entry.content, Record) for entry in entries(path))


def _put(path: Path, content: bytes | None) -> None:
    if content is None:
        path.unlink(missing_ok=True)
        return
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def _keep_damaged(path: Path) -> None:
    """A copy, as it was, of a file that has a line that can be no record."""
    if any(entry.is_damaged for entry in entries(path)):
        kept = free_name(path)
        shutil.copyfile(path, kept)
        print(f"note: {path} had a damaged line; as it was it is {kept.name} now", file=sys.stderr, flush=True)
