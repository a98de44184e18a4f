"""Reading what other commands wrote, and whoever edited it since."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from metric_zoo.errors import RecordError

MOST = 64 * 2**20
"""Bytes of such a file."""


@contextmanager
def written_by(command: str, path: Path) -> Iterator[None]:
    """Whatever a damaged file leads to inside the block becomes one line.

    Raises:
        RecordError: naming the file, the command that writes such files, and what is wrong.
    """
    try:
        yield
    except Exception as error:
        raise RecordError(f"{path} is not what 'metric-zoo {command}' writes: {error!r:.200}") from None


def figure(value: object) -> float:
    """A number that a page can show.

    Raises:
        ValueError: for anything else, infinity and what no measurement yields included.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value) or abs(value) > 1e15:
        raise ValueError(f"{value!r:.80} is no figure")
    return value
