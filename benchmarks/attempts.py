"""Runs whose process ends without a word: begun again, but not for ever."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

from metric_zoo.files import replacing
from metric_zoo.reading import read_json

MOST = 3
"""Beginnings at one place, none of which came to an end."""

_FILE = "begun"
_LONGEST = 2**20
"""Bytes of that file."""
_PLACES = ("step-*/manifest.json", "search/*/step-*/manifest.json", "search/losses-*.json")
"""What a run leaves when it goes on; a checkpoint that is being written may be what takes its process away."""


def begin(checkpoints: Path) -> bool:
    """Note that a run begins where its checkpoints are; whether it may.

    Not when it began so often before and nobody has ended it since, well, badly or on request: whatever takes its
    process away would do so in every launch, and the runs after it would never have their turn.

    Args:
        checkpoints: the run's folder.
    """
    place, count = _place(checkpoints), 0
    with suppress(OSError, ValueError, TypeError, KeyError):
        before = read_json(checkpoints / _FILE, _LONGEST)
        count = int(before["count"]) if before["place"] == place else 0
    if count >= MOST:
        return False
    with suppress(OSError):  # a disk that is full costs the note, not the run
        checkpoints.mkdir(parents=True, exist_ok=True)
        with replacing(checkpoints / _FILE) as temporary:
            temporary.write_text(json.dumps({"place": place, "count": count + 1}), encoding="utf-8")
    return True


def end(checkpoints: Path) -> None:
    """The run has come to an end, or stops because it was asked to."""
    with suppress(OSError):
        (checkpoints / _FILE).unlink(missing_ok=True)
        checkpoints.rmdir()  # unless there are checkpoints in it


def _place(checkpoints: Path) -> list[list]:
    """How far the run is: every finished checkpoint, and every learning rate that was tried."""
    kept = sorted(path for pattern in _PLACES for path in checkpoints.glob(pattern))
    return [[path.relative_to(checkpoints).as_posix(), path.stat().st_mtime_ns] for path in kept]
