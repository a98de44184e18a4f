"""A run that is killed, stopped or shared ends with the figures of one that nobody disturbed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from metric_zoo.benchmarks import checkpoint
from metric_zoo.benchmarks.interruption import RESUMABLE
from metric_zoo.benchmarks.launch import run_recipe
from metric_zoo.benchmarks.recipe import load_recipe
from metric_zoo.benchmarks.record import Record
from metric_zoo.benchmarks.record_files import read_record
from metric_zoo.benchmarks.runs import expand
from metric_zoo.benchmarks.sweep import CHECKPOINTS, claimed, is_claimed

# Dropout, augmentation, a moving average and clipping: every source of randomness and every state there is.
TRAIN = {
    "epochs": 3, "batch_size": 128, "num_workers": 1, "lr": 0.005, "ema": 0.9, "clip_norm": 1.0,
    "checkpoint_minutes": 0.002,
}  # fmt: skip
MODEL = {"name": "resnet10t", "options": {"channels": [8, 8, 16, 16], "drop_rate": 0.2}, "small_image_stem": True}
CHANGES = {
    "models": [MODEL], "kinds": ["shifted"], "train": TRAIN,
    "data": {"name": "digits", "image_size": 16, "augment": "crop-flip"},
}  # fmt: skip


def figures(record: Record) -> dict:
    """All that must not depend on when a run was interrupted."""
    found = record.model_dump()
    epochs = [{key: value for key, value in epoch.items() if key != "seconds"} for epoch in found["epochs"]]
    kept = ("id", "train", "test", "test_hits", "generalization_gap", "robustness", "parameters", "gflops")
    return {"epochs": epochs, **{key: found[key] for key in kept}}


def only_record(folder: Path) -> Record:
    (path,) = folder.glob("*.json")
    return read_record(path)


def launch(recipe: Path, folder: Path, *options: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "metric_zoo.cli", "bench", "run", str(recipe), "--out", str(folder), "--cpu"]
    return subprocess.Popen([*command, *options], stderr=subprocess.PIPE, text=True, start_new_session=True)


def wait_for_checkpoint(folder: Path, process: subprocess.Popen) -> None:
    """Until there is one of the middle of an epoch."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        for manifest in folder.glob(f"{CHECKPOINTS}/*/step-*/manifest.json"):
            if json.loads(manifest.read_text())["progress"]["step"]:
                return
        time.sleep(0.005)
    raise AssertionError(f"no checkpoint in time; exit code {process.poll()}")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> dict:
    import yaml

    from tests.benchmarks.conftest import TINY

    folder = tmp_path_factory.mktemp("undisturbed")
    (folder / "recipe.yaml").write_text(yaml.safe_dump({**TINY, **CHANGES}))
    run_recipe(folder / "recipe.yaml", folder / "out", cpu=True)
    assert {path.suffix or path.name for path in (folder / "out").iterdir()} == {".json", "logs"}
    return figures(only_record(folder / "out"))


def test_kill_9(write_recipe, tmp_path, undisturbed):
    """Twice, in the middle of an epoch; the third launch ends with the undisturbed figures, bit for bit."""
    recipe, folder = write_recipe(**CHANGES), tmp_path / "out"
    for _ in range(2):
        process = launch(recipe, folder)
        wait_for_checkpoint(folder, process)
        process.kill()
        process.communicate()
        assert not list(folder.glob("*.json"))
    assert run_recipe(recipe, folder, cpu=True) == {"ok": 1, "skipped": 0}
    assert figures(only_record(folder)) == undisturbed


def test_asked_to_stop_and_the_last_checkpoint_damaged(write_recipe, tmp_path, undisturbed, capfd):
    """It goes on from the one before."""
    recipe, folder = write_recipe(**CHANGES), tmp_path / "out"
    process = launch(recipe, folder)
    wait_for_checkpoint(folder, process)
    os.killpg(process.pid, signal.SIGTERM)  # as `timeout` and batch systems do: those that load the data get it too
    _, said = process.communicate(timeout=60)
    assert process.returncode == RESUMABLE and "the same command goes on" in said and "Traceback" not in said
    _, newest = sorted(folder.glob(f"{CHECKPOINTS}/*/step-*"))
    with (newest / "model.safetensors").open("r+b") as file:
        file.seek(2000)
        file.write(b"damage")
    assert run_recipe(recipe, folder, cpu=True) == {"ok": 1, "skipped": 0}
    assert "is damaged (its files have changed)" in capfd.readouterr().err
    assert figures(only_record(folder)) == undisturbed


def test_asked_to_stop_while_measuring(write_recipe, tmp_path):
    """After the last epoch there is nothing to save: the next launch measures again what it trained."""
    measure = {"batch_size": 16, "warmup": 1, "repeats": 3, "seconds": 3, "corruptions": False}
    recipe, folder = write_recipe(kinds=["standard"], train={"epochs": 1}, measure=measure), tmp_path / "out"
    process = launch(recipe, folder)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not any("epoch 1 of 1" in p.read_text() for p in folder.glob("logs/*.log")):
        time.sleep(0.05)
    time.sleep(1)
    process.terminate()
    _, said = process.communicate(timeout=60)
    assert process.returncode == RESUMABLE and "the same command goes on" in said and "Traceback" not in said
    assert not list(folder.glob("*.json"))
    assert run_recipe(recipe, folder, cpu=True) == {"ok": 1, "skipped": 0}
    assert len(only_record(folder).epochs) == 1


def test_a_full_disk_costs_the_checkpoint_not_the_run(write_recipe, tmp_path, undisturbed, monkeypatch, capfd):
    def full(*_: object) -> dict:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "_digests", full)
    assert run_recipe(write_recipe(**CHANGES), tmp_path / "out", cpu=True)["ok"] == 1
    assert "No space left on device); going on" in capfd.readouterr().err
    assert figures(only_record(tmp_path / "out")) == undisturbed


def test_launches_share_the_runs(write_recipe, tmp_path):
    """A run that another process holds is left to it; the lock of a dead process holds nothing."""
    recipe, folder = write_recipe(kinds=["standard", "shifted"], train={"epochs": 1}), tmp_path / "out"
    first, second = expand(load_recipe(recipe))
    code = (
        "import sys, time\nfrom pathlib import Path\n"
        "from metric_zoo.benchmarks.runs import Run\nfrom metric_zoo.benchmarks.sweep import claimed\n"
        "with claimed(Run.model_validate_json(sys.argv[1]), Path(sys.argv[2])) as mine:\n"
        "    print(mine, flush=True)\n    time.sleep(600)\n"
    )
    command = [sys.executable, "-c", code, first.model_dump_json(), str(folder)]
    holder = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "True\n" and is_claimed(first, folder) and not is_claimed(second, folder)
        assert run_recipe(recipe, folder, cpu=True) == {"ok": 1, "skipped": 0, "elsewhere": 1}
        assert only_record(folder).kind == "shifted"
    finally:
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
    assert run_recipe(recipe, folder, cpu=True) == {"ok": 2, "skipped": 1}
    with claimed(first, folder) as mine:
        assert not mine  # it is done


@pytest.mark.slow
@pytest.mark.distributed
def test_two_processes_stop_and_go_on_as_one_would(write_recipe, tmp_path):
    """A network that does not look at its batch, stopped and resumed on two processes, and undisturbed on one: the same
    trajectory to rounding, since sums of several processes are added in another order."""
    options = {"channels": [8, 8, 16, 16], "norm_layer": "groupnorm1"}
    changes = {
        **CHANGES,
        "models": [{**MODEL, "options": options}],
        "train": {**TRAIN, "num_workers": 0, "checkpoint_minutes": 0.01},
    }
    recipe, folder = write_recipe(**changes), tmp_path / "out"
    process = launch(recipe, folder, "--num-processes", "2")
    wait_for_checkpoint(folder, process)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=120)
    assert process.returncode == RESUMABLE and "the same command goes on" in said
    process = launch(recipe, folder, "--num-processes", "2")
    assert process.communicate(timeout=300) and process.returncode == 0
    run_recipe(recipe, tmp_path / "one", cpu=True)
    two, one = only_record(folder), only_record(tmp_path / "one")
    assert (two.world_size, one.world_size) == (2, 1)
    for ours, theirs in zip(two.epochs, one.epochs, strict=True):
        assert ours.train_loss == pytest.approx(theirs.train_loss, rel=1e-3)
    assert two.test.loss == pytest.approx(one.test.loss, rel=1e-3)


def test_only_failures_are_run_again(write_recipe, tmp_path):
    """A launch that starts while another ends takes nothing away."""
    recipe, folder = write_recipe(kinds=["standard"], train={"epochs": 1}), tmp_path / "out"
    (run,) = expand(load_recipe(recipe))
    run_recipe(recipe, folder, cpu=True)
    before = run.path(folder).read_bytes()
    with claimed(run, folder, again=True) as mine:
        assert not mine and run.path(folder).read_bytes() == before
    record = read_record(run.path(folder))
    failed = {"status": "failed", "failure": {"type": "E", "message": "no"}, "train": None, "test": None, "epochs": []}
    run.path(folder).write_text(Record(**{**record.model_dump(), **failed}).model_dump_json())
    with claimed(run, folder) as mine:
        assert not mine
    with claimed(run, folder, again=True) as mine:
        assert mine and not run.path(folder).exists()


def test_other_data_do_not_go_on_with_a_checkpoint(write_recipe, tmp_path):
    recipe, folder = write_recipe(**CHANGES), tmp_path / "out"
    process = launch(recipe, folder)
    wait_for_checkpoint(folder, process)
    process.kill()
    process.communicate()
    for manifest in folder.glob(f"{CHECKPOINTS}/*/step-*/manifest.json"):
        found = json.loads(manifest.read_text())
        found["progress"]["fingerprint"] = "of other data"
        manifest.write_text(json.dumps(found))
    assert run_recipe(recipe, folder, cpu=True)["failed"] == 1
    assert "the data have changed" in only_record(folder).failure.message
