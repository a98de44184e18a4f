"""torch's process launcher without its traceback: a worker that failed or was told to stop has said why."""

from __future__ import annotations

import signal
import sys
from contextlib import suppress
from pathlib import Path

from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import main

from metric_zoo.benchmarks.interruption import ENDED, RESUMABLE, SIGNALS, UNWRITABLE, end_with_parent

_ASKED = (RESUMABLE, *(-number for number in SIGNALS))
"""How a worker ends that was asked to, before it could listen or after."""


def status(codes: dict[int, int]) -> int:
    """What to end with when workers ended so, by their number.

    The first that ends takes the others along: they lose the connection, and are told to stop. So all were asked, or
    what any other ended with is what happened.
    """
    others = set(codes.values()).difference(_ASKED)
    if not others:
        return RESUMABLE
    return UNWRITABLE if UNWRITABLE in others else 1


def words(codes: dict[int, int]) -> str:
    """How those ended that were not asked to: ``process 1 was killed by SIGKILL``."""
    return ", ".join(f"process {rank} {_end(code)}" for rank, code in sorted(codes.items()) if code not in _ASKED)


def _end(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    return f"was killed by {signal.Signals(-code).name}" if -code in set(signal.Signals) else f"was killed by {-code}"


if __name__ == "__main__":
    end_with_parent()
    try:
        main()
    except SignalException:
        sys.exit(RESUMABLE)
    except ChildFailedError as error:
        codes = {rank: failure.exitcode for rank, failure in error.failures.items()}
        with suppress(OSError):  # a full disk costs the words, not the status
            Path(sys.argv[-1]).with_name(ENDED).write_text(words(codes), encoding="utf-8")
        sys.exit(status(codes))
