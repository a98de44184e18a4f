"""A log file for every run: what happened when, and the whole traceback of a failure."""

from __future__ import annotations

import traceback
from datetime import datetime, timezone
from pathlib import Path


class RunLog:
    """Appends lines with the time (UTC) to a file; a disk that is full costs the line, not the run.

    Args:
        path: made, with its folder, when first written to.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def write(self, text: str) -> None:
        """One event, of one line or more."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a", encoding="utf-8", errors="backslashreplace") as file:
                file.write(f"{datetime.now(timezone.utc):%Y-%m-%d %H:%M:%S}  {text}\n")
        except OSError:
            return

    def failure(self, error: BaseException) -> None:
        """The whole of it: a record keeps class and message only."""
        self.write("failed\n" + "".join(traceback.format_exception(error)).rstrip())
