"""Several machines, both of them this one: each starts its share of the processes and they find each other; and
networks that no process holds whole."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from metric_zoo.benchmarks.interruption import RESUMABLE
from metric_zoo.benchmarks.record_files import read_record
from tests.benchmarks.shard_worker import losses

pytestmark = [pytest.mark.slow, pytest.mark.distributed]


def start(recipe: Path, folder: Path) -> list[subprocess.Popen]:
    """The same command for both machines."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "metric_zoo.cli", "bench", "launch", str(recipe), "--out", str(folder), "--cpu"]
    command += ["--num-processes", "2", "--num-machines", "2", "--main-process-port", str(port)]
    return [subprocess.Popen([*command, "--machine-rank", str(rank)]) for rank in range(2)]


def worker_of(machine: subprocess.Popen, folder: Path) -> psutil.Process:
    """The training process of a machine, once the first epoch is logged."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and machine.poll() is None:
        if any("epoch 1" in log.read_text() for log in folder.glob("logs/*.log")):
            children = psutil.Process(machine.pid).children(recursive=True)
            return next(child for child in children if "metric_zoo.benchmarks.sweep" in child.cmdline()[1:4])
        time.sleep(0.05)
    raise AssertionError(f"no epoch in time; exit code {machine.poll()}")


def test_two_machines(write_recipe, tmp_path):
    machines = start(write_recipe(kinds=["standard"], train={"epochs": 1}), tmp_path / "out")
    assert [machine.wait(timeout=300) for machine in machines] == [0, 0]
    (path,) = (tmp_path / "out").glob("*.json")
    assert read_record(path).world_size == 2


@pytest.mark.parametrize("victim", [0, 1])
def test_a_worker_dies_on_one_machine(write_recipe, tmp_path, victim):
    """That run has failed, on both; the next one is done by both."""
    recipe = write_recipe(kinds=["standard", "shifted"], train={"epochs": 20, "batch_size": 64})
    machines = start(recipe, tmp_path / "out")
    worker_of(machines[victim], tmp_path / "out").kill()
    assert [machine.wait(timeout=400) for machine in machines] == [1, 1]
    records = {record.kind: record for record in map(read_record, (tmp_path / "out").glob("*.json"))}
    assert {kind: record.status for kind, record in records.items()} == {"standard": "failed", "shifted": "ok"}


def test_one_machine_is_asked_to_stop_while_it_measures(write_recipe, tmp_path):
    """The other only sees a connection end: it must not call the run a failure."""
    measure = {"batch_size": 16, "warmup": 1, "repeats": 3, "seconds": 20, "corruptions": False}
    machines = start(write_recipe(kinds=["standard"], train={"epochs": 1}, measure=measure), tmp_path / "out")
    worker_of(machines[0], tmp_path / "out")
    time.sleep(2)
    machines[0].terminate()
    assert [machine.wait(timeout=120) for machine in machines] == [RESUMABLE, RESUMABLE]
    assert not list((tmp_path / "out").glob("*.json"))


@pytest.mark.parametrize("kind", ["metric", "deformable"])
def test_sharded_parameters(tmp_path, kind):
    """FSDP over two processes follows one process that holds everything: the mean of their losses is its loss."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    subprocess.run([*command, "-m", "tests.benchmarks.shard_worker", kind, str(tmp_path)], check=True)
    parts = [json.loads((tmp_path / f"{process}.json").read_text()) for process in range(2)]
    whole, moved = losses(kind, lambda model: model, slice(None))
    assert len(set(whole)) == len(whole), "the network must have learned something"
    assert [sum(pair) / 2 for pair in zip(*(part[0] for part in parts), strict=True)] == pytest.approx(whole, rel=1e-4)
    assert moved and all(mean > 0 for mean, _ in moved)
    for (mean, maximum), *shares in zip(moved, *(part[1] for part in parts), strict=True):
        assert sum(share[0] for share in shares) / 2 == pytest.approx(mean, rel=0.01)
        assert max(share[1] for share in shares) == pytest.approx(maximum, rel=0.01)
