"""Looking at runs before, while and after they happen."""

from __future__ import annotations

import pytest

from metric_zoo.benchmarks.launch import run_recipe
from metric_zoo.benchmarks.plan import plan_recipe, show_status
from metric_zoo.benchmarks.recipe import load_recipe
from metric_zoo.benchmarks.runs import expand
from metric_zoo.benchmarks.show import show_record
from metric_zoo.benchmarks.sweep import claimed
from metric_zoo.errors import MetricZooError, RecordError


def test_a_plan_lists_and_estimates(write_recipe, tmp_path):
    recipe = write_recipe(kinds=["standard", "shifted"], seeds=2)
    lines = plan_recipe(recipe, tmp_path / "out", cpu=True).splitlines()
    assert lines[0].split("  ")[0] == "run" and "hours" in lines[0] and "memory, MiB" in lines[0]
    rows = [line.split() for line in lines[1:5]]
    assert [row[:4] for row in rows] == [
        ["resnet10t", kind, "seed", s] for s in "01" for kind in ("standard", "shifted")
    ]
    assert {row[6] for row in rows} == {"44"}  # 1,437 images in batches of 64, twice
    standard, shifted = rows[:2]
    assert int(shifted[7].replace(",", "")) > int(standard[7].replace(",", "")) > 0
    assert float(shifted[8]) > float(standard[8]) > 0 and float(shifted[10].replace(",", "")) > 0
    assert lines[-1].startswith("4 runs, about 0.0")
    assert not (tmp_path / "out").exists()


def test_status_tells_what_became_of_every_run(write_recipe, tmp_path):
    recipe, folder = write_recipe(kinds=["standard", "shifted"], train={"epochs": 1}), tmp_path / "out"
    assert show_status(recipe, folder, cpu=True).endswith("2 to do")
    first, second = expand(load_recipe(recipe))
    with claimed(second, folder):
        run_recipe(recipe, folder, cpu=True)
        text = show_status(recipe, folder, cpu=True)
    assert "standard seed 0  done" in text and "shifted seed 0   running" in text
    assert text.endswith("1 done, 1 running")
    shown = show_record(first.path(folder))
    for expected in ("resnet10t (timm), standard, seed 0: ok", "1,437 + 360 images", "calibration error", "p99", "▁"):
        assert expected in shown
    (folder / "broken.json").write_text("{}")
    with pytest.raises(RecordError, match="is not a record"):
        show_record(folder / "broken.json")


def test_status_of_a_failure(write_recipe, tmp_path):
    train = {"epochs": 1, "batch_size": 128, "lr": 1e30, "optimizer": "sgd"}
    recipe = write_recipe(kinds=["standard"], train=train)
    run_recipe(recipe, tmp_path / "out", cpu=True)
    assert "failed: FloatingPointError: the training loss is" in show_status(recipe, tmp_path / "out", cpu=True)


def test_curves_are_the_records(tmp_path):
    """Read back from matplotlib's own lines; the picture itself is looked at by people."""
    from matplotlib.figure import Figure

    from metric_zoo.benchmarks.curves import draw, draw_curves
    from metric_zoo.benchmarks.record_files import write_record
    from metric_zoo.benchmarks.tasks.classification import ClassificationEpoch
    from tests.leaderboards.records import make_record

    fixed = {"lr": 0.1, "train_top1": 0.5, "seconds": 1}
    rows = [{"epoch": i + 1, "train_loss": 2.0 / (i + 1), "test_top1": i / 10, **fixed} for i in range(3)]
    epochs = [ClassificationEpoch(**row) for row in rows]
    records = [make_record(seed=seed, epochs=epochs) for seed in range(2)] + [make_record("shifted", epochs=epochs)]
    losses, accuracies = Figure().subplots(1, 2)
    draw(records, losses, accuracies)
    assert [list(line.get_ydata()) for line in losses.lines] == [[2.0, 1.0, 2.0 / 3]] * 3
    assert list(accuracies.lines[0].get_ydata()) == [0.0, 10.0, 20.0]
    colours = [line.get_color() for line in losses.lines]
    assert colours[0] == colours[1] != colours[2] and len(losses.get_legend().get_texts()) == 2
    paths = [tmp_path / f"{i}.json" for i in range(3)]
    for path, record in zip(paths, records, strict=True):
        write_record(path, record)
    draw_curves(paths, tmp_path / "pictures" / "curves.svg")
    assert "<svg" in (tmp_path / "pictures" / "curves.svg").read_text()
    with pytest.raises(MetricZooError, match="cannot be written"):
        draw_curves(paths, tmp_path / "curves.abc")
    write_record(paths[0], make_record(epochs=[]))
    with pytest.raises(RecordError, match="none of 1 records has an epoch"):
        draw_curves(paths[:1], tmp_path / "curves.svg")


def test_a_search_for_the_learning_rate_takes_steps_too(write_recipe, tmp_path):
    """1437 images in batches of 64 are 22 steps: 2 epochs, and 3 rates of 1 epoch."""
    search = {"lr": [0.1, 0.01, 0.001], "epochs": 1}
    recipe = write_recipe(kinds=["standard"], train={"epochs": 2, "batch_size": 64, "search": search})
    assert f" {22 * (2 + 3)} " in plan_recipe(recipe, tmp_path, cpu=True, estimate=False)
