"""Checkpoints by themselves: what is written comes back bit for bit, and nothing that is read can run."""

from __future__ import annotations

import json
import os
import pickle
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from torch import nn

from metric_zoo.benchmarks import attempts, training_state
from metric_zoo.benchmarks.checkpoint import Checkpoints, _digests, last_position
from metric_zoo.benchmarks.optimization import moving_average
from metric_zoo.benchmarks.search import _kept
from metric_zoo.benchmarks.state import read_state, write_state
from metric_zoo.benchmarks.tasks.classification import ClassificationEpoch
from metric_zoo.benchmarks.training_state import Progress
from metric_zoo.errors import MetricZooError

STATES = {
    "nothing": {},
    "numbers": {"a": [1, -(2**70), 0.1, 1e308, True, None, "\u00e9"], 7: {0: (1, [2, ()])}, "a.0": 5},
    "not finite": [float("inf"), float("-inf")],
    "names that meet": {"a": {"b": torch.ones(2)}, "a.b": torch.zeros(3)},
    "types": [torch.arange(4).to(t) for t in (torch.uint8, torch.int64, torch.bool, torch.bfloat16, torch.float64)],
    "shapes": [torch.tensor(3.5), torch.zeros(0, 2), torch.rand(2, 3, 4, 5).to(memory_format=torch.channels_last)],
    "one memory": [torch.ones(3, 4).T, torch.ones(1).expand(3)],
    "NaN": [torch.tensor([torch.nan, -0.0])],
}


def same(one, other) -> bool:
    if isinstance(one, torch.Tensor):
        bits = one.shape == other.shape and one.dtype == other.dtype
        return (
            bits and one.contiguous().numpy(force=True).tobytes() == other.contiguous().numpy(force=True).tobytes()
            if one.dtype != torch.bfloat16
            else bits and torch.equal(one, other)
        )
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return type(one) is type(other) and len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and one == other


@pytest.mark.parametrize("name", STATES)
def test_states_come_back(tmp_path, name):
    write_state(tmp_path, "part", STATES[name])
    found = read_state(tmp_path, "part")
    assert same(STATES[name], found)
    if name == "shapes":  # other loops would round otherwise
        assert found[2].is_contiguous(memory_format=torch.channels_last)


def test_what_no_file_keeps_is_refused(tmp_path):
    with pytest.raises(TypeError, match=r"a\.0 is a Lock|a\.0 is a lock"):
        write_state(tmp_path, "part", {"a": [__import__("threading").Lock()]})


class Training:
    """A network with dropout, AdamW, a moving average and a scaler, and how it goes on."""

    def __init__(self, folder: Path) -> None:
        torch.manual_seed(0)
        self.accelerator = Accelerator(cpu=True)
        network = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Conv2d(4, 2, 1))
        network = network.to(memory_format=torch.channels_last)
        optimizer = torch.optim.AdamW(network.parameters(), lr=0.1, amsgrad=True)
        self.network, self.optimizer = self.accelerator.prepare(network, optimizer)
        self.average = moving_average(self.network, 0.9)
        self.accelerator.register_for_checkpointing(self.average)
        self.accelerator.scaler = torch.amp.GradScaler("cpu", growth_interval=2)
        self.checkpoints = Checkpoints(folder, self.accelerator)

    def go_on(self, steps: int) -> list:
        """Everything that may have changed, and a draw of every generator."""
        scaler = self.accelerator.scaler
        for _ in range(steps):
            loss = self.network(torch.rand(3, 2, 6, 6)).square().mean() * (1 + random.random() + np.random.rand())
            self.optimizer.zero_grad()
            scaler.scale(loss).backward()
            scaler.step(self.optimizer.optimizer)
            scaler.update()
            self.average.update_parameters(self.network)
        states = [part.state_dict() for part in (self.network, self.optimizer, self.average, scaler)]
        return [*map(dict, states), torch.rand(2), random.random(), np.random.rand()]


@pytest.fixture
def saved(tmp_path) -> Path:
    """A folder of two checkpoints, after 1 step and 3 steps."""
    training = Training(tmp_path / "run")
    for step, more in ((1, 1), (3, 2)):
        training.go_on(more)
        training.checkpoints.save(step, {"epoch": step, "step": 0})
    return tmp_path / "run"


def test_training_goes_on_bit_for_bit(tmp_path):
    """The oracle is the training that nobody stopped."""
    undisturbed = Training(tmp_path / "run")
    undisturbed.go_on(3)
    undisturbed.checkpoints.save(3, {"epoch": 1})
    expected = undisturbed.go_on(4)
    other = Training(tmp_path / "run")
    assert other.checkpoints.restore() == {"epoch": 1}
    assert same(expected, other.go_on(4))


def test_nothing_is_a_pickle(saved):
    files = [path for path in saved.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {".json", ".safetensors"}
    assert {"model.safetensors", "optimizer.json", "registered.safetensors", "random_0.json"} <= {p.name for p in files}


class Trap:
    def __reduce__(self):
        return (Path("sprung").touch, ())


def agree(path: Path) -> None:
    """Have the manifest agree with whatever lies beside it."""
    manifest = json.loads((path / "manifest.json").read_text())
    (path / "manifest.json").write_text(json.dumps({**manifest, "files": _digests(path)}))


def test_no_pickle_is_read(saved, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path in saved.glob("step-*"):
        for name in (
            "random_states_0.pkl",
            "custom_checkpoint_0.pkl",
            "optimizer.bin",
            "pytorch_model.bin",
            "scaler.pt",
        ):
            (path / name).write_bytes(pickle.dumps(Trap()))
        agree(path)
    assert Training(saved).checkpoints.restore() == {"epoch": 3, "step": 0}
    assert not Path("sprung").exists()


def test_a_checkpoint_of_pickles_is_set_aside(saved, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    for path in saved.glob("step-*"):
        for file in path.iterdir():
            file.unlink()
        (path / "optimizer.bin").write_bytes(pickle.dumps(Trap()))
        (path / "manifest.json").write_text(json.dumps({"step": 1, "progress": {"epoch": 1}, "files": _digests(path)}))
    assert Training(saved).checkpoints.restore() is None and not Path("sprung").exists()
    said = capfd.readouterr().err
    assert said.count("of an older version, whose pickled files are not read: it is now older-step-00000000") == 2
    assert len(list(saved.glob("older-step-*"))) == 2 and not list(saved.glob("step-*"))


DEEP = "[" * 100_000 + "]" * 100_000
MANIFESTS = {
    "empty": "",
    "cut off": '{"format": "saf',
    "a list": "[1, 2]",
    "a number": "NaN",
    "nothing in it": '{"format": "safetensors and JSON"}',
    "nested": DEEP,
    "nested in it": '{"format": "safetensors and JSON", "files": {}, "progress": ' + DEEP + "}",
    "a number without end": '{"format": "safetensors and JSON", "files": {}, "progress": ' + "9" * 5000 + "}",
    "other files": '{"format": "safetensors and JSON", "files": {"a": 1}, "progress": {}}',
    "files of another type": '{"format": "safetensors and JSON", "files": [[[1]]], "progress": {}}',
    "not UTF-8": "\udce9",
}


@pytest.mark.parametrize("name", MANIFESTS)
def test_a_damaged_manifest_falls_back_to_the_one_before(saved, capfd, name):
    (saved / "step-000000003" / "manifest.json").write_bytes(MANIFESTS[name].encode("utf-8", "surrogateescape"))
    assert last_position(saved).startswith("epoch 1 done")
    assert Training(saved).checkpoints.restore() == {"epoch": 1, "step": 0}
    said = capfd.readouterr().err.splitlines()
    assert len(said) == 1 and "step-000000003 is damaged" in said[0] and len(said[0]) < 500


def piped(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize("name", ["manifest.json", "model.json", "model.safetensors"])
def test_a_pipe_in_a_file_s_place_is_not_waited_for(saved, capfd, name):
    piped(saved / "step-000000003" / name)
    assert Training(saved).checkpoints.restore() == {"epoch": 1, "step": 0}
    assert "step-000000003 is damaged" in capfd.readouterr().err


def test_a_pipe_in_a_note_s_place_is_not_waited_for(tmp_path):
    """Of beginnings, which it gives way to, of losses and of a part's state."""
    for name in ("begun", "losses.json", "part.json"):
        os.mkfifo(tmp_path / name)
    assert [attempts.begin(tmp_path) for _ in range(4)] == [True, True, True, False]
    assert _kept(tmp_path / "losses.json").losses == {}
    with pytest.raises(OSError, match="named pipe"):
        read_state(tmp_path, "part")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


DAMAGES = {
    "a part is missing": lambda folder: (folder / "registered.safetensors").unlink(),
    "a structure is missing": lambda folder: (folder / "model.json").unlink(),
    "random numbers are missing": lambda folder: (folder / "random_0.json").unlink(),
    "tensors cut off": lambda folder: cut(folder / "optimizer.safetensors"),
    "no tensors": lambda folder: (folder / "model.safetensors").write_bytes(b""),
    "a header without end": lambda folder: (folder / "model.safetensors").write_bytes(b"\xff" * 100),
    "structure nested": lambda folder: (folder / "optimizer.json").write_text(DEEP),
    "structure of another kind": lambda folder: (folder / "optimizer.json").write_text('{"set": [1]}'),
    "another tensor": lambda folder: (folder / "model.json").write_text('{"tensor": "x", "order": []}'),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damaged_files_fall_back_though_the_manifest_agrees(saved, capfd, name):
    newest = saved / "step-000000003"
    DAMAGES[name](newest)
    agree(newest)
    assert Training(saved).checkpoints.restore() == {"epoch": 1, "step": 0}
    assert "step-000000003 is damaged" in capfd.readouterr().err


def test_another_network_is_named(saved):
    training = Training(saved)
    training.accelerator._models[0] = nn.Conv2d(1, 1, 1)
    with pytest.raises(MetricZooError, match="does not fit the run .*remove it to begin anew") as error:
        training.checkpoints.restore()
    assert "\n" not in str(error.value)


EPOCH = {
    "epoch": 1,
    "lr": 0.1,
    "train_loss": 1.0,
    "train_top1": 0.5,
    "test_top1": 0.5,
    "test_loss": 1.0,
    "seconds": 1.0,
}
PROGRESS = {**vars(Progress()), "epoch": 1, "step": 2, "epochs": [EPOCH], "fingerprint": "f"}


def checked(progress: object) -> Progress:
    """As a run of 3 epochs of 10 steps does."""
    return training_state.checked(progress, ClassificationEpoch, epochs=3, steps=10, fingerprint="f")


@pytest.mark.parametrize(
    "change",
    [
        {"epoch": "many"}, {"epoch": -1}, {"epoch": 4}, {"epoch": 2}, {"step": 11}, {"step": 10**400}, {"step": None},
        {"sums": [1.0, 2.0]}, {"sums": [1.0, 2.0, float("nan")]}, {"epochs": {}}, {"epochs": [1]}, {"epochs": [{}]},
        {"seconds": float("inf")}, {"seconds": -1.0}, {"seconds": 1e300}, {"fingerprint": []}, {"micro_batches": 0},
    ],
    ids=str,
)  # fmt: skip
def test_progress_that_no_run_can_have_made_is_damage(change):
    assert checked(PROGRESS).step == 2
    with pytest.raises(ValueError, match=r"^[^\n]+$"):
        checked({**PROGRESS, **change})


def test_progress_on_other_data_is_none_of_this_runs_to_judge():
    assert checked({**PROGRESS, "fingerprint": "g", "step": 10_000}).fingerprint == "g"


@pytest.mark.parametrize("content", ["", DEEP, "[]", '{"losses": {"1.0": "x"}, "seconds": 1}', '{"losses": {}}'])
def test_a_damaged_search_begins_anew(tmp_path, content):
    (tmp_path / "losses.json").write_text(content)
    assert _kept(tmp_path / "losses.json").losses == {}
