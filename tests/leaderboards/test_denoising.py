"""Boards of denoising: PSNR ranks, the gap is a ratio, peers stand beside, notes are shown."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import torch

from metric_zoo.benchmarks import measure
from metric_zoo.benchmarks.record import Record, config_id
from metric_zoo.benchmarks.tasks import tasks_for
from metric_zoo.benchmarks.weights import network_of
from metric_zoo.errors import RecordError
from metric_zoo.leaderboards.build import build
from metric_zoo.leaderboards.cells import cell_of
from metric_zoo.leaderboards.paper_figures import figures_of, published_for
from metric_zoo.leaderboards.soundness import contradictions
from metric_zoo.leaderboards.statistics import leaderboard
from metric_zoo.leaderboards.submit import _fingerprints, _refusals, submit
from tests.leaderboards.records import make_denoising, make_record, write


def of_three(kind: str, mse: float, size: int = 5) -> list[Record]:
    return [make_denoising(kind, seed, mse * (1 + 0.01 * seed), mse / 3, size) for seed in range(3)]


def peer(mse: float) -> Record:
    model = {"name": "gaussian", "source": "peer", "options": {}, "pretrained": False}
    config = {**make_denoising("peer").config, "model": model}
    return make_denoising("peer", 0, mse, mse, config=config, source="peer", epochs=[]).model_copy(
        update={"model": "gaussian"}
    )


def test_figures_by_hand():
    board = leaderboard([*of_three("metric", 0.004), *of_three("deformable", 0.002), peer(0.001)])
    assert board["kind"].tolist() == ["peer", "deformable", "metric"]  # by PSNR
    row = board.iloc[2]
    values = 0.004 * (1 + 0.01 * np.arange(3))
    assert row.test_psnr == pytest.approx(np.mean(-10 * np.log10(values)))
    assert row.test_psnr_std == pytest.approx(np.std(-10 * np.log10(values), ddof=1))
    assert row.test_mse == pytest.approx(values.mean()) and row.generalization_gap == pytest.approx(
        np.mean((values - 0.004 / 3) / (0.004 / 3))
    )
    assert board["rank"].tolist()[1:] == [1, 2] and np.isnan(board["rank"][0])
    assert board["kernel_size"].tolist()[1:] == [5, 5] and np.isnan(board["kernel_size"][0])
    assert board["test_top1"].isna().all() and board["group"].nunique() == 1
    assert set(board["dataset"]) == {"scikit-image, camera, noise 0.3"}


def test_both_tasks_in_one_leaderboard(tmp_path):
    records = [*of_three("metric", 0.004), *of_three("metric", 0.005, 11), peer(0.001), make_record("standard")]
    folder = write(tmp_path / "records", *records)
    (folder / "notes.yaml").write_text("denoising: |\n  One <b>thing</b>.\n\n  Another.\n")
    build(folder, tmp_path / "board")
    names = {path.name for path in (tmp_path / "board").iterdir()}
    assert {"classification.html", "denoising.html"} <= names
    page = (tmp_path / "board" / "denoising.html").read_text()
    assert "<p>One &lt;b&gt;thing&lt;/b&gt;.</p>" in page and "<p>Another.</p>" in page and "Gap δ" in page
    assert "Test top-1, %" not in page and "-kernel.svg" in page
    other = (tmp_path / "board" / "classification.html").read_text()
    assert "Gap δ" not in other and "One &lt;b" not in other
    rows = json.loads((tmp_path / "board" / "leaderboard.json").read_text())
    assert sum(row["test_psnr"] is None for row in rows) == 1 and len(rows) == 4
    frame = pd.read_parquet(tmp_path / "board" / "leaderboard.parquet")
    assert frame["kernel_size"].dropna().tolist() == [5, 11]
    for path in (tmp_path / "board" / "runs").glob("*.html"):
        text = path.read_text()
        assert "Test PSNR over the epochs" in text or "Test accuracy over the epochs" in text or "gaussian" in text
    first, again = ((tmp_path / name) for name in ("board", "again"))
    build(folder, again)
    for path in first.rglob("*"):
        if path.is_file():
            assert path.read_bytes() == (again / path.relative_to(first)).read_bytes()


@pytest.mark.parametrize(
    ("text", "message"),
    [("denoising: [a]", "no mapping of text"), ("classify: x", "no board 'classify'"), ("a: b: c", "cannot be read")],
)
def test_notes_that_are_none(tmp_path, text, message):
    folder = write(tmp_path / "records", make_record())
    (folder / "notes.yaml").write_text(text)
    with pytest.raises(RecordError, match=message):
        build(folder, tmp_path / "board")
    assert not (tmp_path / "board").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"generalization_gap": 0.5}, "mean squared error is 1.0"),
        ({"test": {"psnr": 20.0}}, "too low for a mean squared error"),
        ({"test": {"published_mse": 1.0}}, "published_mse is above mse"),
        ({"test": {"images": 2}}, "2 images were scored, the split has 1"),
    ],
)
def test_what_cannot_be_true(changes, message):
    record = make_denoising()
    data = record.model_dump()
    for name, value in changes.items():
        data[name] = {**data[name], **value} if isinstance(value, dict) else value
    found = contradictions(Record.model_validate(data))
    assert any(message in problem for problem in found)
    assert contradictions(record) == []


def test_scores_of_the_wrong_task():
    data = make_denoising().model_dump()
    with pytest.raises(ValueError, match="train and test of task 'classification' are no Scores"):
        Record.model_validate({**data, "task": "classification"})


def test_where_training_leaves_no_error_there_is_no_gap(tmp_path):
    """Of zero nothing is a multiple: the record says none, and the board shows none."""
    data = make_denoising("metric").model_dump()
    data["train"] = {"mse": 0.0, "psnr": 150.0, "ssim": 1.0, "published_mse": 0.0, "images": 1}
    record = Record.model_validate({**data, "generalization_gap": None})
    assert record.defined_gap is None and contradictions(record) == []
    assert contradictions(record.model_copy(update={"generalization_gap": 1.0}))
    built = build(write(tmp_path / "records", record, make_denoising("shifted")), tmp_path / "board")
    assert built.collection.problems == [] and built.board["generalization_gap"].isna().sum() == 1
    with pytest.raises(ValueError, match="lacks generalization_gap"):
        Record.model_validate({**make_denoising().model_dump(), "generalization_gap": None})


def test_a_submitted_denoiser_is_built_again(tmp_path):
    kind = {"kind": "deformable", "options": {}, "per_pixel": True, "freeze_kernels": True, "init": "uniform"}
    config = {**make_denoising("deformable").config, "kind": kind, "measure": {}}
    record = make_denoising("deformable", config=config)
    model = network_of(record)
    parameters, gflops = measure.count_parameters(model), measure.gflops(model, torch.zeros(1, 1, 64, 64))
    assert parameters.heads == 2 * 25 * 64 * 64
    good = record.model_copy(update={"parameters": parameters, "gflops": gflops})
    assert len(submit([write(tmp_path / "a", good) / "0.json"], tmp_path / "to")) == 1
    wrong = good.model_copy(update={"gflops": 1.0})
    with pytest.raises(RecordError, match="gflops is 1.0"):
        submit([write(tmp_path / "b", wrong) / "0.json"], tmp_path / "other")


def test_published_errors_stand_beside_their_own_protocol():
    kind = {"kind": "deformable", "options": {}, "init": "uniform", "freeze_kernels": True}
    train = {"epochs": 100, "batch_size": 32, "optimizer": "sgd"}
    data = {"name": "bsds300", "noise": 0.1, "image_size": 256, "channels": None}
    config = {**make_denoising("deformable").config, "task": "denoising", "data": data, "train": train, "kind": kind}
    dataset = make_denoising().dataset.model_copy(update={"name": "bsds300"})
    record = make_denoising("deformable", config=config, task="denoising", dataset=dataset)
    assert published_for(record).mean == 1.12
    for change in ({"train": {**train, "epochs": 10}}, {"kind": {**kind, "init": "pretrained"}}):
        assert published_for(record.model_copy(update={"config": {**config, **change}})) is None
    assert len(figures_of(tasks_for([]))) == 4 + 8 + 15


def test_records_that_would_stop_a_board(tmp_path):
    """Each is refused for what it lacks, and the rest is built."""
    good, bad = make_record("standard"), []
    for record, change in (
        (make_record("metric"), {"epochs": [{**e.model_dump(), "test_top1": None} for e in make_record().epochs]}),
        (make_denoising(), {"epochs": [{**e.model_dump(), "test_mse": None} for e in make_denoising().epochs]}),
        (make_denoising("shifted"), {"status": "failed", "failure": {"type": "x", "message": "y"}, "train": None}),
        (make_denoising("active"), {"lr": None}),
    ):
        bad.append({**record.model_dump(mode="json"), **change})
    folder = write(tmp_path / "records", good)
    for index, data in enumerate(bad):
        (folder / f"bad{index}.json").write_text(json.dumps(data))
    huge = make_denoising("deformable").model_dump(mode="json")
    huge["config"]["model"]["options"]["kernel_size"] = 10**400
    huge["id"] = config_id(huge["config"])
    (folder / "huge.json").write_text(json.dumps(huge))
    built = build(folder, tmp_path / "board")
    reasons = [problem.reason for problem in built.collection.problems]
    assert len(reasons) == 5 and len(built.board) == 1
    for words in ("lacks test_top1", "lacks test_mse", "has no scores", "which one was taken", "more than 64 bits"):
        assert any(words in reason for reason in reasons)


def test_tasks_do_not_exclude_each_other():
    """scikit-image's pictures in squares are other data than one of them, under one name."""
    one = make_denoising("metric")
    data = {**one.config["data"], "image": None}
    other = make_denoising("metric", config={**one.config, "task": "denoising", "data": data}, task="denoising")
    other = other.model_copy(update={"dataset": other.dataset.model_copy(update={"fingerprint": "d"})})
    known = _fingerprints([one])
    assert "another fingerprint" not in str(_refusals(other, True, known))
    changed = one.model_copy(update={"dataset": one.dataset.model_copy(update={"fingerprint": "e"})})
    assert "another fingerprint" in str(_refusals(changed, True, known))


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"eps": 0.0, "max_num_iter": 2000}, "eps=0.0, max_num_iter=2000"),
        ({}, "eps=0.0002, max_num_iter=200"),  # scikit-image's defaults, of records that do not say
    ],
)
def test_the_settings_of_a_peer_stand_in_the_table(options, told):
    record = make_denoising("peer", model="total-variation", source="peer", options=options)
    assert cell_of(record).options == told
