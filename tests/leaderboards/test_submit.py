"""Records of strangers: what can be true is taken, what cannot is named, and all come in or none."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from metric_zoo import MetricZooError, RecordError
from metric_zoo.benchmarks.launch import run_recipe
from metric_zoo.benchmarks.record import config_id
from metric_zoo.benchmarks.record_files import entries, read_record, write_record
from metric_zoo.leaderboards.collect import collect, record_files
from metric_zoo.leaderboards.soundness import contradictions, is_marked
from metric_zoo.leaderboards.statistics import leaderboard
from metric_zoo.leaderboards.submit import recounted, submit
from tests.leaderboards.records import make_record, with_hits

ROOT = Path(__file__).parents[2]
RESULTS = [entry for path in record_files(ROOT / "leaderboards" / "results") for entry in entries(path)]


@pytest.fixture(scope="module")
def genuine(tmp_path_factory) -> Path:
    """The record of a real run of a converted network, as of a clean commit."""
    import yaml

    from tests.benchmarks.conftest import TINY

    folder = tmp_path_factory.mktemp("genuine")
    (folder / "recipe.yaml").write_text(yaml.safe_dump({**TINY, "kinds": ["metric"], "train": {"epochs": 1}}))
    run_recipe(folder / "recipe.yaml", folder / "out", cpu=True)
    (path,) = (folder / "out").glob("*.json")
    record = read_record(path)
    provenance = record.provenance.model_copy(update={"git_sha": "c0ffee" + "0" * 34, "git_dirty": False})
    write_record(path, record.model_copy(update={"provenance": provenance}))
    return path


def edited(path: Path, folder: Path, edit) -> Path:
    data = json.loads(path.read_text())
    edit(data)
    target = folder / "submitted.json"
    target.write_text(json.dumps(data))
    return target


def test_a_genuine_record_is_taken_once(genuine, tmp_path):
    (new,) = submit([genuine], tmp_path / "results")
    assert new.name.startswith("resnet10t_metric-seed0-") and read_record(new) == read_record(genuine)
    assert submit([genuine], tmp_path / "results") == [], "it is there already"


def set_(*keys, to):
    def edit(data):
        for key in keys[:-1]:
            data = data[key]
        data[keys[-1]] = to

    return edit


def also_in_the_configuration(data):
    data["seed"] += 1
    data["config"]["seed"] += 1


REFUSED = [
    (set_("test", "top1", to=1.2), "test.top1: Input should be less than or equal to 1"),
    (set_("test", "loss", to=float("nan")), "NaN is no number"),
    (lambda data: data.pop("seed"), "seed: Field required"),
    (set_("provenance", "git_dirty", to=True), "not a clean commit"),
    (set_("provenance", "git_sha", to=None), "not a clean commit"),
    (set_("parameters", "total", to=12), "a part is larger than the total"),
    (lambda data: data["parameters"].update(total=data["parameters"]["total"] + 1), "its network has"),
    (lambda data: data.update(gflops=data["gflops"] * 2), "its network needs"),
    (set_("seed", to=7), "seed is 7, but the configuration says 0"),
    (also_in_the_configuration, "but the configuration's hash is"),
    (set_("kind", to="shifted"), "kind.kind is 'shifted', but the configuration says otherwise"),
    (lambda data: data["test"].update(top1=data["test"]["top1"] + 0.0001), "is no whole number of 360 images"),
    (lambda data: data["test"].update(top1=(round(data["test"]["top1"] * 360) + 1) / 360), "test_hits names"),
    (set_("generalization_gap", to=0.5), "generalization_gap is 0.500000, but train minus test"),
    (set_("test", "images", to=359), "359 images were scored, the split has 360"),
    (set_("test", "top5", to=0.0), "top-5 is below top-1"),
    (lambda data: data["epochs"].clear() or data["epochs"].append({**EPOCH, "epoch": 2}), "epochs are not numbered"),
    (lambda data: data["inference"].update(median=1e9), "quartiles are not in order"),
    (set_("provenance", "finished", to="1999-01-01T00:00:00+00:00"), "it ended before it began"),
    (set_("provenance", "started", to="yesterday"), "is no ISO 8601 time"),
    (set_("provenance", "git_sha", to="; rm -rf /"), "is no commit"),
    (set_("weights", to="pretrained"), "model.pretrained is True, but the configuration says otherwise"),
    (set_("device", to="NVIDIA H200"), "device is 'cuda', but the configuration says 'cpu'"),
    (set_("dataset", "name", to="imagenet"), "data.name is 'imagenet', but the configuration says otherwise"),
    (set_("epochs", to=[]), "0 epochs, but the configuration says 1"),
    (set_("inference", "dtype", to="float64"), "dtype float64, but the configuration says precision 'no'"),
    (set_("test_hits", to=None), "lacks test_hits"),
    (set_("gflops", to=None), "lacks gflops"),
    (lambda data: data["config"]["model"].update(name="resnet1000") or data.update(model="resnet1000"), "hash is"),
]
EPOCH = {"epoch": 1, "lr": 0.1, "train_loss": 1, "train_top1": 0.1, "test_top1": 0.1, "seconds": 1}


@pytest.mark.parametrize(("edit", "reason"), REFUSED, ids=[reason for _, reason in REFUSED])
def test_what_cannot_be_true_is_refused(genuine, tmp_path, edit, reason):
    path = edited(genuine, tmp_path, edit)
    with pytest.raises(RecordError) as refusal:
        submit([path, genuine], tmp_path / "results")
    assert reason in str(refusal.value)
    assert not (tmp_path / "results").exists(), "all or none"


def test_changed_sources_are_taken_when_marked(genuine, tmp_path):
    path = edited(genuine, tmp_path, set_("provenance", "git_dirty", to=True))
    assert len(submit([path], tmp_path / "results", allow_changed=True)) == 1


def test_a_failed_run_is_no_result(tmp_path):
    write_record(tmp_path / "f.json", make_record(status="failed", failure={"type": "E", "message": "no"}))
    with pytest.raises(RecordError, match="the run failed"):
        submit([tmp_path / "f.json"], tmp_path / "results", rebuild=False)


def test_what_is_there_is_not_overwritten(genuine, tmp_path):
    submit([genuine], tmp_path / "results")
    other = edited(genuine, tmp_path, set_("wall_seconds", to=1.0))
    with pytest.raises(RecordError, match="is of the same run and says otherwise"):
        submit([other], tmp_path / "results")


def test_the_same_run_twice_in_one_submission(genuine, tmp_path):
    with pytest.raises(RecordError, match="is of the same run as another one"):
        submit([genuine, genuine], tmp_path / "results", rebuild=False)


def rewritten(path: Path, folder: Path, **model) -> Path:
    """The record of a run whose model is another, with the identity that belongs to it."""

    def edit(data):
        data["config"]["model"] |= model
        data["model"] = data["config"]["model"]["name"]
        data["id"] = config_id(data["config"])

    return edited(path, folder, edit)


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        ({"name": "resnet_of_atlantis"}, "its network cannot be built again"),
        ({"name": "hf-hub:somebody/x"}, "which is not built for strangers"),
        ({"name": "local-dir:/etc"}, "which is not built for strangers"),
        (
            {"options": {"checkpoint_path": "x.pth"}},
            "options.checkpoint_path = 'x.pth', which is not built for strangers",
        ),
        ({"options": {"weights_backbone": "DEFAULT"}}, "which is not built for strangers"),
        ({"options": {"block_args": {"attn_layer": "/etc/passwd"}}}, "which is not built for strangers"),
        ({"options": {"num_classes": 10**9}}, "its network has"),
    ],
    ids=str,
)
def test_what_a_stranger_says_is_neither_opened_nor_fetched_nor_allocated(
    genuine, tmp_path, monkeypatch, model, reason
):
    def fetched(*_, **__):
        raise AssertionError("somebody opened or fetched something")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", fetched)
    monkeypatch.setattr(torch, "load", fetched)
    with pytest.raises(RecordError, match=reason):
        submit([rewritten(genuine, tmp_path, **model)], tmp_path / "results")


def test_other_data_of_a_known_name(genuine, tmp_path):
    submit([genuine], tmp_path / "results")
    other = edited(genuine, tmp_path, set_("dataset", "fingerprint", to="0" * 64))
    with pytest.raises(RecordError, match="are not those of the results so far"):
        submit([other], tmp_path / "results")


def of_another_recipe(data):
    data["recipe"] = data["config"]["recipe"] = "another"
    data["id"] = config_id(data["config"])


def test_a_full_disk_leaves_none(genuine, tmp_path, monkeypatch):
    """Of two recipes, whose records are two files."""
    written = []

    def full(source, target, replace=os.replace):
        if written:
            raise OSError(28, "No space left on device")
        written.append(target)
        replace(source, target)

    second = edited(genuine, tmp_path, of_another_recipe)
    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(MetricZooError, match="No space left on device"):
        submit([genuine, second], tmp_path / "results", rebuild=False)
    assert written and not list((tmp_path / "results").glob("*.json*"))


def test_made_up_records_are_consistent():
    """The records of the other tests, with and without hits."""
    hits = np.random.default_rng(0).random(77) < 0.5
    assert contradictions(make_record()) == contradictions(with_hits(make_record(), hits)) == []


@pytest.mark.parametrize("entry", RESULTS, ids=[entry.path.stem for entry in RESULTS])
def test_committed_results_are_sound(entry):
    """And their networks, built again, have the parameters and operations that they say."""
    record = entry.record
    assert record.status == "ok" and contradictions(record) == [] and not is_marked(record)
    assert recounted(record) == []
    for source in filter(None, (record.provenance, record.timing)):
        ours = ("records/", "build/", "benchmarks/recipes/")  # below the project
        paths = [word for word in source.command.split() if "/" in word and not word.startswith(ours)]
        assert not paths, "a path of somebody's machine"


def _in_csv(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def test_the_published_board_is_of_the_committed_results():
    """Kinds, seeds and means; the rest of its bytes depends on the versions of what draws it."""
    published = pd.read_csv(ROOT / "leaderboards" / "published" / "leaderboard.csv")
    board = leaderboard(collect(ROOT / "leaderboards" / "results").records)
    assert len(board) > 0
    for name in ("cell", "group", "kind", "ids", "seeds"):
        assert list(published[name].astype(str)) == [_in_csv(value) for value in board[name]]
    for name in ("test_top1", "test_psnr", "generalization_gap", "inference"):
        np.testing.assert_allclose(published[name], board[name].astype(float), rtol=1e-9)
