"""When the machines of a launch may start their workers: after a failure, all of them anew and together."""

from __future__ import annotations

import contextlib
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from metric_zoo.benchmarks.interruption import RESUMABLE
from metric_zoo.benchmarks.sweep import LOCKS, stop_marker
from metric_zoo.errors import MetricZooError
from metric_zoo.files import replacing

_PATIENCE = 600.0
"""Seconds for machine 0 to begin."""


class Rounds:
    """The rounds of a launch on several machines, told in the shared folder.

    A machine that is quicker to see a failure than machine 0 would otherwise connect to what is left of the round
    before, on the same port, and wait there for ever.

    Args:
        folder: of the records, the same for all machines.
        machines, rank, port: how many there are, which this is, and where machine 0 is met.
    """

    def __init__(self, folder: Path, machines: int, rank: int, port: int) -> None:
        self._folder, self._alone, self._rank = folder, machines == 1, rank
        self._marker, self._last = folder / LOCKS / f"round-{port}", ""

    @contextmanager
    def round(self, is_over: Callable[[], bool]) -> Iterator[bool]:
        """While workers run; whether there is anything to run.

        Args:
            is_over: whether nothing is left to do.

        Raises:
            MetricZooError: if machine 0 does not begin in ten minutes; SystemExit if it was asked to stop.
        """
        if self._alone:
            yield True
        elif self._rank:
            yield self._follow(is_over)
        else:
            self._marker.parent.mkdir(parents=True, exist_ok=True)
            with replacing(self._marker) as temporary:
                temporary.write_text(uuid.uuid4().hex, encoding="utf-8")
            try:
                yield True
            finally:
                with contextlib.suppress(OSError):
                    self._marker.unlink()
                    self._marker.parent.rmdir()  # unless somebody else has a lock in it

    def _follow(self, is_over: Callable[[], bool]) -> bool:
        """Wait for a round that is new."""
        deadline = time.monotonic() + _PATIENCE
        while time.monotonic() < deadline:
            token = self._read()
            if token and token != self._last:
                self._last = token
                return True
            if is_over():
                return False
            if stop_marker(self._folder).exists():
                sys.exit(RESUMABLE)
            time.sleep(0.2)
        raise MetricZooError(
            f"machine 0 began no round in {_PATIENCE:.0f} seconds: start it with the same recipe, folder and port"
        )

    def _read(self) -> str:
        try:
            return self._marker.read_text(encoding="utf-8")
        except OSError:
            return ""
