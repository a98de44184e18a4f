"""Reading files that may be anybody's: what is read has an end and one meaning."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from metric_zoo.files import check_regular

_DIGITS = 1000
_LEVELS = 100


def read_text(path: Path, most: int) -> str:
    """The text of a file in UTF-8, with or without a byte order mark.

    Args:
        path: of a regular file, or a link to one; what never ends (a pipe, a device) is not waited for.
        most: bytes.

    Raises:
        OSError: if it cannot be read, or is no file; ValueError if it is too large, or no text in UTF-8.
    """
    check_regular(path)
    with open(path, "rb") as file:
        return decoded(file.read(most + 1), most)


def read_lines(path: Path, most: int) -> Iterator[tuple[int, bytes]]:
    """The lines of a file that are not blank, as bytes, and their numbers from 1; of a line of more than ``most``
    bytes the first ``most + 1``.

    Raises:
        OSError: if it cannot be read, or is no file.
    """
    check_regular(path)
    with open(path, "rb") as file:
        number = 0
        while line := file.readline(most + 1):
            number, rest = number + 1, line
            while not rest.endswith(b"\n") and (rest := file.readline(most + 1)):
                pass
            if len(line) > most or line.strip():
                yield number, line.rstrip(b"\r\n")


def decoded(data: bytes, most: int) -> str:
    """At most ``most`` bytes as text in UTF-8, with or without a byte order mark.

    Raises:
        ValueError: if they are more, or no text in UTF-8.
    """
    if len(data) > most:
        raise ValueError(f"its bytes are more than {most:,}")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError("it is not text in UTF-8") from None


def read_json(path: Path, most: int) -> Any:
    """JSON of a file of at most ``most`` bytes, as `parse_json` takes it.

    Raises:
        OSError, ValueError: saying what is wrong with it.
    """
    return parse_json(read_text(path, most))


def parse_json(text: str) -> Any:
    """JSON without NaN, integers of more than 1000 digits, half characters or more than 100 levels, and whose objects
    have every key once.

    Raises:
        ValueError: saying what is wrong with it.
    """
    try:
        data = json.loads(text, parse_constant=_no_number, parse_int=_integer, object_pairs_hook=_object)
        if is_deeper(data, _LEVELS):
            raise RecursionError
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


def is_deeper(tree: Any, most: int) -> bool:
    """Whether lists and dicts lie in one another in more than ``most`` levels; it takes no call for each of them."""
    level = [tree]
    for _ in range(most):
        level = [item for part in level for item in _parts(part)]
    return bool(level)


def _parts(tree: Any) -> list[Any]:
    """What a list or the values of a dict hold; nothing of anything else."""
    return list(tree.values()) if isinstance(tree, dict) else tree if isinstance(tree, list) else []
