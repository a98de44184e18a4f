"""Trained networks outlive their runs."""

from __future__ import annotations

import pytest
import torch

from metric_zoo.benchmarks.data import load_data
from metric_zoo.benchmarks.launch import run_recipe
from metric_zoo.benchmarks.recipe import Run
from metric_zoo.benchmarks.record import read_record
from metric_zoo.benchmarks.weights import trained_model, weights_path
from metric_zoo.errors import RecordError


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
