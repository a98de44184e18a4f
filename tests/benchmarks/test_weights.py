"""Trained networks outlive their runs, and can be timed again."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from metric_zoo.benchmarks import execute
from metric_zoo.benchmarks.collect import collect_records
from metric_zoo.benchmarks.data import load_data
from metric_zoo.benchmarks.launch import run_recipe
from metric_zoo.benchmarks.measure import loss_of, training_step
from metric_zoo.benchmarks.recipe import load_recipe
from metric_zoo.benchmarks.record_files import read_record
from metric_zoo.benchmarks.remeasure import FIGURES, remeasure
from metric_zoo.benchmarks.run_measurements import autocast_of
from metric_zoo.benchmarks.runs import Run, expand
from metric_zoo.benchmarks.weights import trained_model, weights_path
from metric_zoo.errors import MetricZooError, RecordError


@torch.no_grad()
def right_answers(model, dataset) -> int:
    """A plain loop, none of the harness."""
    images, labels = zip(*dataset, strict=True)
    return int((model(torch.stack(images)).argmax(1) == torch.stack(labels)).sum())


def test_weights_are_of_the_network_that_was_scored(write_recipe, tmp_path):
    """With a moving average, whose weights are others than those that were trained."""
    train = {"epochs": 2, "batch_size": 64, "lr": 0.005, "ema": 0.9}
    recipe, out = write_recipe(kinds=["shifted", "metric"], train=train), tmp_path / "out"
    assert run_recipe(recipe, out, cpu=True, weights=True)["ok"] == 2
    for path in out.glob("*.json"):
        record = read_record(path)
        test = load_data(Run.model_validate(record.config).data).test
        assert right_answers(trained_model(path), test) == round(record.test.top1 * record.test.images)


def test_missing_and_foreign_weights(write_recipe, tmp_path):
    recipe, out = write_recipe(kinds=["standard"]), tmp_path / "out"
    assert run_recipe(recipe, out, cpu=True)["ok"] == 1
    (path,) = out.glob("*.json")
    with pytest.raises(RecordError, match="launch the run with --keep-weights"):
        trained_model(path)
    weights_path(path).parent.mkdir()
    weights_path(path).write_bytes(b"no tensors")
    with pytest.raises(RecordError, match="does not hold the weights"):
        trained_model(path)


def test_measuring_again_changes_the_speed_alone(write_recipe, tmp_path, monkeypatch):
    train = {"epochs": 1, "batch_size": 64, "precision": "bf16", "layout": "channels_last"}
    out = tmp_path / "out"
    run_recipe(write_recipe(train=train), out, cpu=True, weights=True)
    paths = sorted(out.glob("*.json"))
    before = [read_record(path).model_dump() for path in paths]
    remeasure(paths, rounds=3, cpu=True)
    for path, old in zip(paths, before, strict=True):
        new = read_record(path).model_dump()
        changed = {name for name in new if new[name] != old[name]}
        assert changed == {*FIGURES, "latency_ms", "timing"}
        for name, images in (("inference", 16), ("inference_single", 1), ("training", 16), ("training_single", 1)):
            figure = new[name]
            assert figure["repeats"] == 3 * 3 and figure["batch_size"] == images  # at least three in a round
            assert (figure["dtype"], figure["compiled"]) == ("bfloat16", False)
        assert new["inference"]["layout"] == "channels_last"
        assert new["latency_ms"]["p50"] == pytest.approx(1e3 / new["inference_single"]["median"], rel=1e-9)
        assert new["timing"]["started"] >= old["provenance"]["finished"]

    timed = [read_record(path) for path in paths]
    (lines,) = collect_records(out).files
    monkeypatch.setattr("metric_zoo.benchmarks.remeasure.FIGURES", ("inference_single",))
    assert remeasure([lines], rounds=1, cpu=True) == len(paths) and not list(out.glob("*.json")), (
        "lines, in their place"
    )
    for path, old in zip(paths, timed, strict=True):
        new = read_record(path)
        assert new.timing.started > old.timing.started and (new.id, new.test) == (old.id, old.test)


def test_what_cannot_be_measured_again_leaves_all_records(write_recipe, tmp_path, monkeypatch):
    out = tmp_path / "out"
    run_recipe(write_recipe(), out, cpu=True, weights=True)
    paths = sorted(out.glob("*.json"))
    before = [path.read_bytes() for path in paths]
    with pytest.raises(MetricZooError, match="rounds=0"):
        remeasure(paths, rounds=0)
    elsewhere = read_record(paths[1]).model_copy(update={"device": "Some GPU"})
    paths[1].write_text(elsewhere.model_dump_json())
    with pytest.raises(MetricZooError, match="is of a run on 'Some GPU', this machine offers 'cpu'"):
        remeasure(paths, cpu=True)
    paths[1].write_bytes(before[1])
    weights_path(paths[1]).unlink()
    with pytest.raises(RecordError, match="--keep-weights"):
        remeasure(paths, cpu=True)
    assert [path.read_bytes() for path in paths] == before


def test_weights_are_cast_anew_by_every_pass(write_recipe):
    """Autocast keeps what it has cast until it is left: around several steps it would hide each from the next."""
    torch.manual_seed(0)
    (run,) = expand(load_recipe(write_recipe(kinds=["standard"], train={"precision": "bf16"})))
    autocast = partial(autocast_of, run, torch.device("cpu"))
    model, images = torch.nn.Linear(8, 3), torch.randn(4, 8)
    step = training_step(model, torch.optim.SGD(model.parameters(), lr=0.5), autocast)
    losses = []
    for _ in range(4):
        losses.append(loss_of(model, images, autocast).item())
        step(images)
    assert losses[0] > losses[1] > losses[2] > losses[3]


def test_a_full_disk_costs_the_weights_not_the_record(write_recipe, tmp_path, monkeypatch, capsys):
    def full(*_) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(execute, "keep_weights", full)
    recipe = write_recipe(kinds=["standard"], train={"epochs": 1})
    assert run_recipe(recipe, tmp_path / "out", cpu=True, weights=True)["ok"] == 1
    said = capsys.readouterr().err
    assert (
        "its weights could not be kept: [Errno 28]" in said and "1 runs were done without keeping their weights" in said
    )
