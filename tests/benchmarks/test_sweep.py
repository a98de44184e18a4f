"""Running recipes: one process and two, failures, skipping, and figures that a plain loop confirms."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F

from metric_zoo import MetricZooError, nn
from metric_zoo.benchmarks.launch import Processes, run_recipe
from metric_zoo.benchmarks.recipe import load_recipe
from metric_zoo.benchmarks.record_files import read_record
from metric_zoo.benchmarks.runs import expand
from metric_zoo.benchmarks.sweep import Plan, run_pending
from metric_zoo.benchmarks.tasks.classification import Scores
from tests.benchmarks.conftest import TINY
from tests.benchmarks.evaluate_worker import network_and_data


def records_in(folder) -> dict:
    return {r.kind: r for r in map(read_record, sorted(folder.glob("*.json")))}


def test_one_process(write_recipe, tmp_path):
    recipe = write_recipe()
    outcome = run_recipe(recipe, tmp_path / "out", cpu=True)
    assert outcome == {"ok": 2, "skipped": 0}
    records = records_in(tmp_path / "out")
    assert set(records) == {"standard", "shifted"}
    shifted, standard = records["shifted"], records["standard"]
    assert standard.parameters.heads == 0 and shifted.converted_layers == 5
    heads = shifted.parameters.total - standard.parameters.total
    # Five 3x3 heads of two channels each: the first reads the stem's 64 channels, the others 8.
    assert shifted.parameters.heads == heads == 2 * 9 * (64 + 4 * 8) + 2 * 5
    for record in records.values():
        assert record.train.images == 1437 and record.test.images == 360
        assert record.train.top1 > 0.2, "the network must have learned something"
        assert record.generalization_gap == pytest.approx(record.train.top1 - record.test.top1)
        assert (record.test.top1 * 360) == pytest.approx(round(record.test.top1 * 360))
        assert (
            len(record.epochs) == 2 and record.inference.median > 0 and record.latency_ms.p90 >= record.latency_ms.p50
        )
        assert record.provenance.versions["torch"].startswith(torch.__version__.split("+")[0])
    assert shifted.gflops > standard.gflops > 0
    before = {p: p.read_bytes() for p in (tmp_path / "out").rglob("*.*")}
    assert run_recipe(recipe, tmp_path / "out", cpu=True) == {"ok": 2, "skipped": 2}
    assert {p: p.read_bytes() for p in (tmp_path / "out").rglob("*.*")} == before


def test_the_same_seed_gives_the_same_figures(write_recipe, tmp_path):
    for name in ("a", "b"):
        run_recipe(write_recipe(kinds=["shifted"]), tmp_path / name, cpu=True)
    a, b = (records_in(tmp_path / name)["shifted"] for name in ("a", "b"))
    assert a.test == b.test and a.train == b.train and a.epochs[0].train_loss == b.epochs[0].train_loss


# Five outputs for ten classes: nothing to object to before the first batch.
BROKEN = {"name": "resnet10t", "options": {"channels": [8, 8, 16, 16], "num_classes": 5}, "small_image_stem": True}


def test_a_failure_is_recorded_and_the_sweep_goes_on(write_recipe, tmp_path):
    recipe = write_recipe(models=[BROKEN, *TINY["models"]], kinds=["standard"])
    assert run_recipe(recipe, tmp_path / "out", cpu=True) == {"ok": 1, "failed": 1, "skipped": 0}
    records = {r.status: r for r in map(read_record, (tmp_path / "out").glob("*.json"))}
    assert records["failed"].failure.type == "IndexError" and "out of bounds" in records["failed"].failure.message
    assert records["failed"].wall_seconds > 0
    assert run_recipe(recipe, tmp_path / "out", cpu=True)["skipped"] == 2
    assert run_recipe(recipe, tmp_path / "out", cpu=True, retry_failed=True) == {"ok": 1, "failed": 1, "skipped": 1}


MISTAKES = [
    (
        {"kinds": ["standard", {"kind": "metric", "where": "no_such_layer"}]},
        "metric: where: 'no_such_layer' matches none",
    ),
    ({"kinds": [{"kind": "metric", "options": {"metric_groups": 7}}]}, "7 sampling groups"),
    ({"kinds": [{"kind": "standard", "init": "uniform"}]}, "would do nothing"),
    ({"models": ["resnet10tt"]}, "timm has no model 'resnet10tt'; did you mean"),
    ({"models": [{"name": "resnet10t", "options": {"chanels": 1}}]}, "an option 'chanels'"),
    ({"models": [{"name": "vgg11", "small_image_stem": True}]}, "small_image_stem: VGG has no"),
    ({"models": [{"name": "resnet18", "source": "torchvision"}]}, "set data.channels: 3"),
    ({"data": {"name": "digit"}}, "unknown data set 'digit'"),
    ({"data": {"name": "cifar10", "root": "nowhere"}}, "'cifar10' is not in nowhere"),
]


@pytest.mark.parametrize(("changes", "message"), MISTAKES, ids=[message for _, message in MISTAKES])
def test_mistakes_are_found_before_anything_is_trained(write_recipe, tmp_path, changes, message):
    with pytest.raises(MetricZooError, match=message):
        run_recipe(write_recipe(**changes), tmp_path / "out", cpu=True)
    assert not (tmp_path / "out").exists()


def test_regularised_heads_and_frozen_kernels(write_recipe, tmp_path):
    """With the published factor the heads stay near zero; frozen kernels do not count as trainable."""
    kinds = [{"kind": "shifted", "init": "uniform", "freeze_kernels": True}]
    run_recipe(write_recipe(kinds=kinds, train={"epochs": 1, "head_regularization": 5000}), tmp_path / "out", cpu=True)
    record = records_in(tmp_path / "out")["shifted"]
    frozen = record.parameters.total - record.parameters.trainable
    assert record.status == "ok" and frozen == 9 * (64 * 8 + 8 * 8 + 8 * 8 + 8 * 8 + 8 * 16)


def test_a_loss_that_is_not_finite_is_a_failure(write_recipe, tmp_path):
    train = {"epochs": 1, "batch_size": 128, "lr": 1e30, "optimizer": "sgd"}
    assert run_recipe(write_recipe(kinds=["standard"], train=train), tmp_path, cpu=True)["failed"] == 1
    assert records_in(tmp_path)["standard"].failure.type == "FloatingPointError"


def test_torchvision_models_train_too(write_recipe, tmp_path):
    model = {"name": "resnet18", "source": "torchvision", "small_image_stem": True}
    data = {"name": "digits", "image_size": 8, "channels": 3}
    recipe = write_recipe(models=[model], data=data, kinds=[{"kind": "active", "where": r"layer1\..*"}])
    assert run_recipe(recipe, tmp_path / "out", cpu=True)["ok"] == 1
    assert records_in(tmp_path / "out")["active"].converted_layers == 4


@pytest.mark.distributed
def test_two_processes(write_recipe, tmp_path):
    """One launch, one run that fails among others: all are accounted for."""
    recipe = write_recipe(models=[BROKEN, *TINY["models"]], kinds=["shifted"], seeds=[0])
    assert run_recipe(recipe, tmp_path / "out", processes=Processes(2), cpu=True) == {
        "ok": 1,
        "failed": 1,
        "skipped": 0,
    }
    records = {r.status: r for r in map(read_record, (tmp_path / "out").glob("*.json"))}
    assert {r.world_size for r in records.values()} == {2}
    assert records["failed"].failure.type == "IndexError"
    assert records["ok"].test.images == 360 and records["ok"].train.images == 1437
    logs = {path.stem: path.read_text() for path in (tmp_path / "out" / "logs").iterdir()}
    assert set(logs) == {path.stem for path in (tmp_path / "out").glob("*.json")}
    assert sum("Traceback" in text and "IndexError" in text for text in logs.values()) == 1
    assert sum("epoch 2 of 2: loss" in text and "done: test_top1" in text for text in logs.values()) == 1
    assert len(list((tmp_path / "out").iterdir())) == 3


@pytest.mark.distributed
def test_workers_that_die_leave_a_failed_record(write_recipe, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    # Every worker process imports sitecustomize; this one makes the first run kill its process without a word.
    (tmp_path / "sitecustomize.py").write_text(
        "import sys, os\n"
        "class Finder:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        worker = 'metric_zoo.benchmarks.sweep' in sys.orig_argv and os.environ.get('RANK')\n"
        "        if worker and name == 'metric_zoo.benchmarks.execute':\n"
        "            os._exit(9)\n"
        "sys.meta_path.insert(0, Finder())\n"
    )
    outcome = run_recipe(write_recipe(kinds=["standard"]), tmp_path / "out", processes=Processes(2), cpu=True)
    assert outcome == {"failed": 1, "skipped": 0}
    assert records_in(tmp_path / "out")["standard"].failure.type == "WorkerDied"


@pytest.mark.distributed
def test_two_processes_count_every_image_once(tmp_path):
    """101 images in batches of 8 over two processes; a plain loop over all of them is the oracle."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command += ["-m", "tests.benchmarks.evaluate_worker", str(tmp_path)]
    subprocess.run(command, check=True, env=None)
    model, data = network_and_data()
    images, labels = data.tensors
    with torch.no_grad():
        logits = model(images)
    ranks = (logits > logits.gather(1, labels[:, None])).sum(1)
    for process in range(2):
        scores = Scores.model_validate(json.loads((tmp_path / f"{process}.json").read_text()))
        assert scores.images == 101
        assert round(scores.top1 * 101) == (ranks < 1).sum() and round(scores.top5 * 101) == (ranks < 5).sum()
        assert scores.loss == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-6)


def test_the_number_of_processes_is_checked(write_recipe, tmp_path):
    runs = expand(load_recipe(write_recipe()), processes=2)
    with pytest.raises(MetricZooError, match="asked for 2 processes on cpu, the environment provides"):
        run_pending(Plan(runs=runs, folder=tmp_path, running=tmp_path / "running"))
    with pytest.raises(MetricZooError, match="num-processes is 0"):
        run_recipe(write_recipe(), tmp_path, processes=Processes(0))


def test_workers_that_do_nothing_are_no_endless_loop(write_recipe, tmp_path, monkeypatch):
    monkeypatch.setattr("metric_zoo.benchmarks.launch._wait_for", lambda *_: (0, False))
    with pytest.raises(MetricZooError, match="did not start"):
        run_recipe(write_recipe(), tmp_path, processes=Processes(2), cpu=True)


def test_head_regularization_is_the_formula():
    model = torch.nn.Sequential(nn.ShiftedConv2d(2, 2, 3), nn.MetricConv2d(2, 2, 3), torch.nn.Conv2d(2, 2, 3))
    heads = [model[0].sampler, model[1].sampler]
    with torch.no_grad():
        for head in heads:
            head.weight.normal_()
            head.bias.normal_()
    means = [float(abs(p.detach().numpy()).mean()) for head in heads for p in (head.weight, head.bias)]
    assert nn.head_regularization(model).item() == pytest.approx(sum(means) / 4, rel=1e-6)
    assert nn.head_regularization(model[2]).item() == 0
