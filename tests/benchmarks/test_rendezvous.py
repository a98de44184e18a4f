"""Machines of a launch begin every round together, and never with what is left of the one before."""

from __future__ import annotations

import threading
from contextlib import ExitStack

import pytest

from metric_zoo.benchmarks.interruption import RESUMABLE
from metric_zoo.benchmarks.rendezvous import Rounds
from metric_zoo.benchmarks.sweep import CHECKPOINTS, LOCKS, stop_marker
from metric_zoo.errors import MetricZooError


def machines(folder, count: int = 2) -> list[Rounds]:
    return [Rounds(folder, count, rank, 29500) for rank in range(count)]


def never() -> bool:
    return False


def test_one_machine_asks_nobody(tmp_path):
    with Rounds(tmp_path, 1, 0, 29500).round(never) as begun:
        assert begun and not list(tmp_path.iterdir())


def test_a_quick_machine_waits_for_the_next_round(tmp_path):
    first, second = machines(tmp_path)
    began: list[int] = []

    def follow() -> None:
        for number in (1, 2):
            with second.round(never) as begun:
                assert begun
                began.append(number)

    quick = threading.Thread(target=follow)
    with first.round(never):
        quick.start()
        quick.join(1.0)
        assert began == [1] and quick.is_alive()  # its first round has ended; machine 0's has not
    quick.join(0.5)
    assert began == [1] and quick.is_alive()
    with first.round(never):
        quick.join(5.0)
        assert began == [1, 2] and not quick.is_alive()
    assert not (tmp_path / LOCKS).exists()


def test_nothing_is_left(tmp_path):
    _, second = machines(tmp_path)
    with second.round(lambda: True) as begun:
        assert not begun


def test_machine_0_was_asked_to_stop(tmp_path):
    _, second = machines(tmp_path)
    (tmp_path / CHECKPOINTS).mkdir()
    stop_marker(tmp_path).touch()
    with pytest.raises(SystemExit) as stopped, ExitStack() as stack:
        stack.enter_context(second.round(never))
    assert stopped.value.code == RESUMABLE


def test_machine_0_never_begins(tmp_path, monkeypatch):
    monkeypatch.setattr("metric_zoo.benchmarks.rendezvous._PATIENCE", 0.3)
    _, second = machines(tmp_path)
    with pytest.raises(MetricZooError, match="machine 0 began no round"), ExitStack() as stack:
        stack.enter_context(second.round(never))
