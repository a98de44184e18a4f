"""How far a launch is."""

from __future__ import annotations

from datetime import timedelta

from metric_zoo.benchmarks.provenance import Clock


class Tally:
    """Counts the runs of a launch, and guesses from their mean how long the others will take.

    Args:
        runs: without a record when the launch began; other launches may take some of them.
    """

    def __init__(self, runs: int) -> None:
        self._runs, self._ok, self._failed, self._clock = runs, 0, 0, Clock()

    def after(self, ok: bool) -> str:
        """One more run has ended, well or not: the state in a line."""
        self._ok, self._failed = self._ok + ok, self._failed + (not ok)
        done = self._ok + self._failed
        left = max(self._runs - done, 0)
        time = timedelta(seconds=round(self._clock.seconds() / done * left))
        return f"{self._ok} runs done, {self._failed} failed, {left} left" + (f": about {time}" if left else "")
