"""Being asked to stop: a run finishes its step, saves and ends with a status that says it can go on."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

RESUMABLE = 75
"""Exit status of a launch that was asked to stop (EX_TEMPFAIL): the same command goes on where it stopped."""

UNWRITABLE = 74
"""Exit status of a worker that could not write a record, and has said so (EX_IOERR)."""

ENDED = "ended"
"""File beside the plan of a launch: how its workers ended, in words."""

SIGNALS = (signal.SIGTERM, signal.SIGINT)


_requests: list[int] = []
"""Signals that came while `resumable` or `Interruption` listened."""


def was_asked() -> bool:
    """Whether a request to stop came. What runs at that moment may have swallowed the exit that it led to: an import
    that catches everything, a destructor."""
    return bool(_requests)


class Interruption:
    """Notes SIGTERM and SIGINT while it is entered, instead of dying of them.

    Attributes:
        noted: whether one came. Several processes may learn of it after different steps: they must agree.
    """

    def __init__(self) -> None:
        self.noted = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interruption:
        if threading.current_thread() is not threading.main_thread():
            return self  # where Python takes no signals: the program around us handles them
        self.noted = was_asked()
        for number in SIGNALS:
            self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        _requests.clear()
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, _: object) -> None:
        _requests.append(number)
        self.noted = True


@contextmanager
def resumable(quiet: bool = False) -> Iterator[None]:
    """Where there is nothing to save: a request to stop ends the process at once, with `RESUMABLE`.

    `Interruption` takes requests over while it is entered.

    Args:
        quiet: the process that started this one says what happened: to a worker, being told to stop looks the same
            whether somebody asked or another worker has died.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave(number: int, _: object) -> None:
        _requests.append(number)
        if not quiet:
            say_stopped()
        sys.exit(RESUMABLE)

    before = {number: signal.signal(number, leave) for number in SIGNALS}
    try:
        yield
    finally:
        _requests.clear()
        for number, handler in before.items():
            signal.signal(number, handler)


def say_stopped() -> None:
    """To whoever asked."""
    print("stopped; the same command goes on", file=sys.stderr, flush=True)


_PR_SET_PDEATHSIG = 1


def end_with_parent() -> None:
    """Ask the system, where it is Linux, to ask this process to stop when the one that started it has died.

    Otherwise workers whose launcher was killed would go on alone, and the next launch beside them.
    """
    if not sys.platform.startswith("linux"):
        return
    parent = os.getppid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it died meanwhile
        os.kill(os.getpid(), signal.SIGTERM)
