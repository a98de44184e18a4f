"""What files hold, in 64 digits each, read once as long as they do not change."""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import platformdirs
from tqdm import tqdm

from metric_zoo.errors import DataError
from metric_zoo.files import check_regular, replacing, sha256_of
from metric_zoo.text import told

_FRESH = 50_000_000
"""Nanoseconds in which a file can change again without another time in its status."""
_PATIENCE = 2.0
"""Seconds before a bar shows how far it is."""

Known = dict[str, list[Any]]
"""By name relative to the root: its `_stamp` and its digest."""


def digests(root: Path, paths: Sequence[str]) -> list[tuple[str, str]]:
    """Of every file its name, relative to the root, and the SHA-256 of its contents, in hexadecimal digits.

    What was read is kept in the user's cache folder, and counts while size, times and inode stay what they were: a
    second launch reads nothing. Without such a folder everything is read again.

    Args:
        root: of the data set; the cache is one file for each.
        paths: of files in it.

    Raises:
        DataError: for the first of them that is missing, no file but a pipe, or cannot be read.
    """
    cache = _cache(root)
    known, now = _known(cache), time.time_ns()
    names = _names(str(root), paths)
    stamps = [_stamp(path) for path in paths]
    new = [i for i, name in enumerate(names) if known.get(name, [])[:-1] != stamps[i]]
    with ThreadPoolExecutor() as pool:
        bar = tqdm(pool.map(_digest, (paths[i] for i in new)), "reading files", len(new), delay=_PATIENCE, leave=False)
        read = {names[i]: [*stamps[i], digest] for i, digest in zip(new, bar, strict=True)}
    _keep(cache, known, {name: entry for name, entry in read.items() if now - max(entry[1:3]) > _FRESH})
    every = {**known, **read}
    return [(name, every[name][-1]) for name in names]


def digest_of(root: Path, paths: Sequence[str], labels: Iterable[object] = ()) -> str:
    """One SHA-256 over names, contents and labels of files."""
    whole, labels = hashlib.sha256(), list(labels) or [""] * len(paths)
    for (name, digest), label in zip(digests(root, paths), labels, strict=True):
        whole.update(os.fsencode(name.replace(os.sep, "/")) + f"\0{digest}\0{label}\n".encode())
    return whole.hexdigest()


def _names(root: str, paths: Sequence[str]) -> list[str]:
    start = os.path.join(root, "")
    return [path[len(start) :] if path.startswith(start) else os.path.relpath(path, root) for path in paths]


def _stamp(path: str) -> list[int]:
    """Size, times of change in nanoseconds (of the contents, which programs may set back, and of the status) and inode;
    another one if a file was written to or replaced."""
    try:
        status = check_regular(path)
    except FileNotFoundError:
        raise DataError(f"{path} is missing") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {told(error)}") from None
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]


def _digest(path: str) -> str:
    try:
        return sha256_of(path)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {told(error)}") from None


def _cache(root: Path) -> Path:
    name = hashlib.sha256(os.fsencode(root.resolve())).hexdigest()[:16]
    return Path(platformdirs.user_cache_dir("metric-zoo")) / "digests" / f"{name}.json"


def _known(cache: Path) -> Known:
    """Empty where there is none, or a damaged one."""
    try:
        check_regular(cache)
        found = json.loads(cache.read_text(encoding="utf-8"))
        return {name: entry for name, entry in found.items() if _is_entry(entry)}
    except (OSError, ValueError, AttributeError, RecursionError):
        return {}


def _is_entry(entry: object) -> bool:
    return (
        isinstance(entry, list)
        and len(entry) == 5
        and isinstance(entry[-1], str)
        and re.fullmatch("[0-9a-f]{64}", entry[-1]) is not None
    )


def _keep(cache: Path, known: Known, read: Known) -> None:
    """Another process may do the same at this moment: the file is replaced as a whole, and the last one's stays."""
    if not read:
        return
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        with replacing(cache) as temporary:
            temporary.write_text(json.dumps(known | read), encoding="utf-8")
    except OSError:  # no place for it: the next launch reads again
        return
