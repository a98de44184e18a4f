"""torch's process launcher without its traceback: a worker that failed or was told to stop has said why."""

from __future__ import annotations

import sys

from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import main

from metric_zoo.benchmarks.interruption import RESUMABLE

if __name__ == "__main__":
    try:
        main()
    except SignalException:
        sys.exit(RESUMABLE)
    except ChildFailedError as error:
        stopped = any(failure.exitcode == RESUMABLE for failure in error.failures.values())
        sys.exit(RESUMABLE if stopped else 1)
