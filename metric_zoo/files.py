"""Writing files so that a reader sees the whole file or none, and reading those that may be anybody's."""

from __future__ import annotations

import json
import os
import stat
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_DIGITS = 1000
_LEVELS = 100


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` that takes its place when the block ends well, and vanishes otherwise.

    Raises:
        OSError: if the folder is missing or not writable.
    """
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o644)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def read_text(path: Path, most: int) -> str:
    """UTF-8 text of a file of at most ``most`` bytes.

    Raises:
        OSError, ValueError: saying what is wrong with it, or that it is a pipe or a device, which might never end.
    """
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise ValueError("it is no regular file")
    if status.st_size > most:
        raise ValueError(f"its {status.st_size:,} bytes are more than {most:,}")
    with path.open("rb") as file:
        return file.read(most).decode("utf-8")


def read_json(path: Path, most: int) -> Any:
    """JSON of a file of at most ``most`` bytes, without NaN, integers of more than 1000 digits, half characters or more
    than 100 levels, and whose objects have every key once.

    Raises:
        OSError, ValueError: saying what is wrong with it.
    """
    text = read_text(path, most)
    try:
        data = json.loads(text, parse_constant=_no_number, parse_int=_integer, object_pairs_hook=_object)
        _check_depth(data)
        json.dumps(data, ensure_ascii=False).encode()
    except RecursionError:
        raise ValueError(f"it has more than {_LEVELS} levels") from None
    except UnicodeEncodeError:
        raise ValueError("it holds half of a surrogate pair, which is no character") from None
    return data


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no number")


def _integer(digits: str) -> int:
    if len(digits) > _DIGITS:
        raise ValueError(f"an integer of {len(digits)} digits is no count")
    return int(digits)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        [(name, _)] = Counter(name for name, _ in pairs).most_common(1)
        raise ValueError(f"{name[:80]!r} is there more than once")
    return found


def _check_depth(data: Any) -> None:
    level = [data]
    for _ in range(_LEVELS):
        level = [item for part in level for item in parts(part)]
        if not level:
            return
    raise ValueError(f"it has more than {_LEVELS} levels")


def parts(tree: Any) -> list[Any]:
    """What a list or the values of a dict hold; nothing of anything else."""
    return list(tree.values()) if isinstance(tree, dict) else tree if isinstance(tree, list) else []
