"""What records and logs say of where a run's network samples, and that looking changes nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from torch import nn

import metric_zoo as mz
from metric_zoo.benchmarks import sampling
from metric_zoo.benchmarks.data import load_data
from metric_zoo.benchmarks.launch import Processes, run_recipe
from metric_zoo.benchmarks.log import RunLog
from metric_zoo.benchmarks.model import build_model
from metric_zoo.benchmarks.per_pixel import learn_fields
from metric_zoo.benchmarks.recipe import load_recipe
from metric_zoo.benchmarks.record import Record
from metric_zoo.benchmarks.record_files import read_record
from metric_zoo.benchmarks.runs import expand
from metric_zoo.benchmarks.sampling import SamplingWatch
from metric_zoo.benchmarks.show import show_record
from metric_zoo.benchmarks.train import Trainer
from metric_zoo.benchmarks.weights import trained_model
from metric_zoo.leaderboards.build import build
from metric_zoo.leaderboards.soundness import contradictions
from tests.benchmarks.test_resume import CHANGES, TRAIN
from tests.leaderboards.records import make_record, write

FIGURES = {"layers": 7, "mean": 0.5, "p99": 2.0, "maximum": 4.25, "outside": 0.125, "never_moved": 2 / 7}


def only(folder: Path, kind: str) -> Path:
    (path,) = folder.glob(f"*{kind}*.json")
    return path


def test_a_record_says_where_the_trained_network_samples(write_recipe, tmp_path):
    """The oracle is the network that it keeps, asked again."""
    data = {"name": "digits", "image_size": 8}
    recipe = write_recipe(kinds=["deformable"], data=data, train={"epochs": 1, "batch_size": 128})
    assert run_recipe(recipe, tmp_path, cpu=True, weights=True)["ok"] == 1
    path = only(tmp_path, "deformable")
    found, test = read_record(path).sampling, load_data(load_recipe(recipe).data).test
    images = torch.stack([test[index][0] for index in range(16)])
    health = mz.nn.sampling_health(trained_model(path), images)
    assert found.layers == len(health.layers) and found.mean > 0 and found.never_moved == 0
    for name in ("mean", "p99", "maximum", "outside"):
        assert getattr(found, name) == pytest.approx(getattr(health, name), rel=1e-3)
    assert f"{found.maximum:.3g} at most" in show_record(path)


def test_the_words_of_a_record_and_of_its_page(tmp_path):
    record = make_record("deformable", sampling=FIGURES)
    words = "0.5 px from the grid on average, 2 at the 99th percentile, 4.25 at most, 12.5% outside, 29% of 7 layers"
    folder = write(tmp_path / "records", record, make_record("metric"))
    assert f"sampling            {words} never moved" in show_record(folder / "0.json")
    assert "\nsampling" not in show_record(folder / "1.json")
    build(folder, tmp_path / "out")
    pages = [page.read_text() for page in (tmp_path / "out/runs").glob("*.html")]
    assert [f"{words} never moved" in page for page in pages].count(True) == 1 and len(pages) == 2


def test_a_record_of_impossible_figures_is_left_out():
    assert not list(contradictions(make_record("deformable", sampling=FIGURES)))
    assert list(contradictions(make_record("deformable", sampling={**FIGURES, "maximum": 1.0})))
    for damage in ({"outside": 1.5}, {"mean": float("nan")}, {"p99": -1.0}):
        with pytest.raises(ValueError, match=next(iter(damage))):
            make_record("deformable", sampling={**FIGURES, **damage})


def test_older_records_are_read_and_written_as_they_were():
    assert make_record().sampling is None
    data = make_record().model_dump(mode="json")
    del data["sampling"]
    assert Record.model_validate(data) == make_record()


@pytest.mark.parametrize("kind", ["shifted", pytest.param("metric", marks=pytest.mark.slow)])
def test_looking_changes_no_bit_of_a_run(write_recipe, tmp_path, monkeypatch, kind):
    """With dropout, augmentation, clipping and a moving average; the oracle is a run that is not looked at."""
    train = {**TRAIN, "num_workers": 0, "epochs": 2, "checkpoint_minutes": 10}
    data = {**CHANGES["data"], "image_size": 8}
    (run,) = expand(load_recipe(write_recipe(**{**CHANGES, "kinds": [kind], "train": train, "data": data})))
    splits, found, looks, warn = load_data(run.data), [], [], SamplingWatch._warn
    monkeypatch.setattr(sampling, "_PATIENCE", 0)
    for told in (lambda watch, epoch: (looks.append(epoch), warn(watch, epoch)), lambda *_: None):
        monkeypatch.setattr(SamplingWatch, "_warn", told)
        trainer = Trainer(run, Accelerator(cpu=True), splits, tmp_path / f"{len(found)}", RunLog(tmp_path / "log"))
        epochs = [epoch.model_copy(update={"seconds": 0}) for epoch in trainer.train()]
        found.append((epochs, {**trainer.scored.state_dict()}, torch.get_rng_state()))
    (epochs, state, random), (others, other_state, other_random) = found
    assert looks == [1, 2] and epochs == others and torch.equal(random, other_random)
    assert all(torch.equal(value, other_state[name]) for name, value in state.items())


class Watched:
    """A network of a run, its watch, and the warnings so far."""

    def __init__(self, recipe: Path, tmp_path: Path) -> None:
        (run,) = expand(load_recipe(recipe))
        splits, self.path = load_data(run.data), tmp_path / "log"
        self.model = build_model(run, splits.info)
        self.rest = (run, Accelerator(cpu=True), splits.test, RunLog(self.path))
        self.watch = SamplingWatch(self.model, *self.rest)
        self.layers = {name: m for name, m in self.model.named_modules() if isinstance(m, mz.nn.SampledConv2d)}

    @property
    def said(self) -> list[str]:
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        return [line[21:] for line in lines]


def test_the_log_warns_once_of_every_layer(write_recipe, tmp_path):
    """One whose offsets explode, one that learns, and others that never do."""
    of = Watched(write_recipe(kinds=["shifted"], train={"epochs": 3}), tmp_path)
    far, healthy, *still = of.layers
    nn.init.constant_(of.layers[far].sampler.bias, 30.0)
    nn.init.constant_(of.layers[healthy].sampler.bias, 0.5)
    of.watch.look(1)
    size = "16x16"
    assert of.said[0] == (
        f"warning after epoch 1: {far} (shifted) reads up to 42.4 px from its grid, of an input of {size} px: lower "
        "train.head_lr_scale, or bound what it predicts (max_offset, limit) where it can"
    )
    assert len(still) >= 3
    assert of.said[1:] == [
        f"warning after epoch 1: {name} (shifted) has not moved a sample since the run began, though its sampling is "
        "trained"
        for name in still
    ]
    nn.init.constant_(of.layers[healthy].sampler.bias, 1e9)
    of.watch.look(3)
    assert len(of.said) == 2 + len(still) and f"epoch 3: {healthy} (shifted) reads up to 1.41e+09 px" in of.said[-1]


@pytest.mark.parametrize(
    "changes",
    [{"train": {"epochs": 1, "head_lr_scale": 0.0}}, {"kinds": ["standard"]}, {"kinds": [{"kind": "dilated"}]}],
    ids=["heads that are held", "nothing sampled", "nothing learned"],
)
def test_what_is_meant_to_stay_is_no_fault(write_recipe, tmp_path, changes):
    of = Watched(write_recipe(**{"kinds": ["deformable"], "train": {"epochs": 1}, **changes}), tmp_path)
    of.watch.look(1)
    assert not of.said


def test_a_look_is_taken_where_it_costs_little(write_recipe, tmp_path, monkeypatch):
    """By the clock: after the first epoch, once 50 times as long as the last look took has passed, and at the end."""
    now, looks = [0.0], []

    def warn(watch, epoch):
        looks.append(epoch)
        now[0] += 2.0

    monkeypatch.setattr(sampling.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(SamplingWatch, "_warn", warn)
    of = Watched(write_recipe(kinds=["shifted"], train={"epochs": 20}), tmp_path)
    for epoch in range(1, 21):
        now[0] += 30.0
        of.watch.look(epoch)
    assert looks == [1, 5, 9, 13, 17, 20]


def test_a_look_that_fails_costs_no_run(write_recipe, tmp_path, monkeypatch):
    """Of the watch, and of the record's field; each is logged once."""
    monkeypatch.setattr(sampling, "health_during", lambda *_: 1 / 0)
    of = Watched(write_recipe(kinds=["shifted"], train={"epochs": 2}), tmp_path)
    of.watch.look(1)
    of.watch.look(2)
    assert of.path.read_text().count("ZeroDivisionError") == 1
    assert sampling.sampling(of.model, *of.rest) == {}
    assert of.path.read_text().count("ZeroDivisionError") == 2


def test_fields_of_every_pixel_tell_whether_they_have_learned():
    """As heads do, in whose place they are."""
    for kind in ("metric", "deformable"):
        model, image = nn.Sequential(mz.nn.get_kind(kind).layer(1, 1, 3, padding=1)), torch.rand(1, 1, 8, 9)
        learn_fields(model, image)
        assert mz.nn.sampling_health(model, image).never_moved == 1
        model(image).square().sum().backward()
        with torch.no_grad():
            model[0].sampler.field -= 0.1 * model[0].sampler.field.grad
        assert mz.nn.sampling_health(model, image).never_moved == 0


@pytest.mark.slow
@pytest.mark.distributed
def test_one_of_two_processes_looks(write_recipe, tmp_path):
    """The other does not wait for what never comes, and warns of nothing itself."""
    recipe = write_recipe(kinds=["shifted"], train={"epochs": 2, "lr": 1e-30, "optimizer": "sgd"})
    assert run_recipe(recipe, tmp_path, Processes(2), cpu=True)["ok"] == 1
    record, (log,) = read_record(only(tmp_path, "shifted")), (tmp_path / "logs").glob("*.log")
    assert record.world_size == 2 and record.sampling.layers == log.read_text().count("has not moved a sample")
