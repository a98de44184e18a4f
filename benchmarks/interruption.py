"""Being asked to stop: a run finishes its step, saves and ends with a status that says it can go on."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

RESUMABLE = 75
"""Exit status of a launch that was asked to stop (EX_TEMPFAIL): the same command goes on where it stopped."""

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Interruption:
    """Notes SIGTERM and SIGINT while it is entered, instead of dying of them.

    Attributes:
        noted: whether one came. Several processes may learn of it after different steps: they must agree.
    """

    def __init__(self) -> None:
        self.noted = False
        self._before: dict[int, object] = {}

    def __enter__(self) -> Interruption:
        if threading.current_thread() is not threading.main_thread():
            return self  # where Python takes no signals: the program around us handles them
        for number in SIGNALS:
            self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, *_: object) -> None:
        self.noted = True


@contextmanager
def resumable(marker: Path | None = None) -> Iterator[None]:
    """Where there is nothing to save: a request to stop ends the process at once, with `RESUMABLE`.

    `Interruption` takes requests over while it is entered.

    Args:
        marker: a file to leave when that happens, for processes that only see a connection end.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave(*_: object) -> None:
        if marker is not None:
            with suppress(OSError):
                marker.parent.mkdir(parents=True, exist_ok=True)
                marker.touch()
        print("stopped; the same command goes on", file=sys.stderr, flush=True)
        sys.exit(RESUMABLE)

    before = {number: signal.signal(number, leave) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
