"""A task that is declared outside the package goes through all of it, and no file of the package knows it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import yaml

from metric_zoo import MetricZooError, RecipeError, RecordError
from metric_zoo.benchmarks.curves import draw_curves
from metric_zoo.benchmarks.input_look import look_of
from metric_zoo.benchmarks.launch import run_recipe
from metric_zoo.benchmarks.recipe import load_recipe
from metric_zoo.benchmarks.record import Record, config_id
from metric_zoo.benchmarks.record_files import read_record, write_record
from metric_zoo.benchmarks.show import show_record
from metric_zoo.benchmarks.tasks import Task, get_task, list_tasks, register, registry
from metric_zoo.benchmarks.weights import trained_model
from metric_zoo.leaderboards.build import build
from metric_zoo.leaderboards.columns import columns_of
from metric_zoo.leaderboards.difference import difference
from metric_zoo.leaderboards.plots import tradeoffs
from metric_zoo.leaderboards.site.pages import recipe_of
from metric_zoo.leaderboards.soundness import contradictions
from metric_zoo.leaderboards.statistics import leaderboard
from metric_zoo.leaderboards.submit import submit
from tests.end_to_end.brightness import Brightness
from tests.end_to_end.brightness_training import images
from tests.leaderboards.records import make_record, write

ROOT = Path(__file__).parents[2]
RECIPE = {
    "name": "brightness-small",
    "task": "brightness",
    "data": {"name": "brightness"},
    "models": [{"name": "resnet10t", "options": {"channels": [8, 8, 8, 8]}, "small_image_stem": True}],
    "kinds": ["standard", "shifted"],
    "seeds": [0, 1],
    "train": {"epochs": 2, "batch_size": 32, "lr": 0.01},
    "measure": {"batch_size": 2, "warmup": 0, "repeats": 3, "seconds": 0},
}


@pytest.fixture(scope="module", autouse=True)
def installed(tmp_path_factory):
    """Another package, as a package manager leaves it: what it declares is found by its entry points alone."""
    site = tmp_path_factory.mktemp("site")
    info = site / "brightness_zoo-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: brightness-zoo\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[metric_zoo.tasks]\nbrightness = tests.end_to_end.brightness:Brightness\nbroken = tests.nowhere:Task\n"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(site))
        registry._foreign.cache_clear()
        yield
        registry._TASKS.pop("brightness", None)
    registry._foreign.cache_clear()


@pytest.fixture(scope="module")
def records(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    (folder / "recipe.yaml").write_text(yaml.safe_dump(RECIPE))
    outcome = run_recipe(folder / "recipe.yaml", folder / "records", cpu=True, weights=True)
    assert outcome["ok"] == 4
    return folder / "records"


def one(records: Path, kind: str = "shifted", seed: int = 0) -> Path:
    (path,) = records.glob(f"*{kind}-seed{seed}-*.json")
    return path


def test_no_file_of_the_package_knows_it():
    for part in ("metric_zoo", "benchmarks", "leaderboards", "converters"):
        for path in (ROOT / part).rglob("*.py"):
            assert not re.search(r"test_mae|[\"']brightness[\"']", path.read_text(encoding="utf-8")), path


def test_it_is_found_by_name():
    assert list_tasks()[-2:] == ["brightness", "broken"] and isinstance(get_task("brightness"), Brightness)
    with pytest.raises(MetricZooError, match=r"task 'broken' \(tests.nowhere:Task\) cannot be loaded: .*nowhere"):
        get_task("broken")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": "brightnes"}, "unknown task 'brightnes'; did you mean 'brightness'.*known: .*, brightness"),
        ({"data": {"name": "brightness", "noise": 0.1}}, "task 'brightness' and data.noise=0.1: .* need one"),
        ({"peers": ["gaussian"]}, "peers are for the task denoising"),
    ],
    ids=["name", "noise", "peers"],
)
def test_recipes_that_it_does_not_fit(tmp_path, changes, message):
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump({**RECIPE, **changes}))
    with pytest.raises(RecipeError, match=message) as refused:
        load_recipe(tmp_path / "recipe.yaml")
    assert "\n" not in str(refused.value)


def test_names_that_two_tasks_would_have():
    class Other(Brightness):
        name = "classification"

    with pytest.raises(ValueError, match="there is another task 'classification'"):
        register(Other)
    Other.name = "../brightness"
    with pytest.raises(ValueError, match="expected small letters"):
        register(Other)


@pytest.mark.parametrize("lacking", ["label", "main", "error"])
def test_a_declaration_that_lacks_something(lacking):
    declared = {name: value for name, value in vars(Brightness).items() if name != lacking and name[:2] != "__"}
    with pytest.raises(MetricZooError, match=f"task 'other' does not declare {lacking}$"):
        register(type("Other", (Task,), {**declared, "name": "other"}))


def test_a_record_says_what_the_network_computes(records):
    """numpy repeats the error from the kept weights."""
    path = one(records)
    record = read_record(path)
    pictures, target = images(32, 1).tensors
    answers = trained_model(path)(pictures)[:, 0].detach().numpy()
    errors = np.minimum(np.abs(answers - target.numpy()), 1)
    assert record.test.mae == pytest.approx(errors.mean(), rel=1e-4)
    assert record.test.worst == pytest.approx(errors.max(), rel=1e-4)
    assert record.generalization_gap == record.test.mae - record.train.mae
    data = json.loads(path.read_text())
    assert list(data["test"]) == ["mae", "worst", "images"] and set(data["robustness"]) == {"noise"}
    assert [list(epoch) for epoch in data["epochs"]] == [["epoch", "lr", "train_loss", "test_mae", "seconds"]] * 2
    assert data["epochs"][-1]["test_mae"] == record.test.mae
    assert Record.model_validate(data) == record and look_of(record).size == 8


def test_a_record_is_read_where_the_task_is_known_alone(records, tmp_path, monkeypatch):
    """Elsewhere it is no damage, which would be replaced."""
    text = one(records).read_text().replace('"brightness"', '"brightnes"')
    (tmp_path / "r.json").write_text(text)
    with pytest.raises(
        RecordError, match="not installed: unknown task 'brightnes'; did you mean 'brightness'"
    ) as refused:
        read_record(tmp_path / "r.json")
    assert type(refused.value) is RecordError


def test_show_and_curves(records, tmp_path):
    record, text = read_record(one(records)), show_record(one(records))
    assert f"mae {record.test.mae:.4g}, worst {record.test.worst:.4g}" in text
    assert f"{255 * record.generalization_gap:.3f} levels" in text and "test MAE, levels" in text
    assert f"MAE {255 * record.robustness['noise']:.3f} levels" in text
    draw_curves(sorted(records.glob("*.json")), tmp_path / "curves.svg")
    assert "Test MAE, levels" in (tmp_path / "curves.svg").read_text()


def cells(maes: dict[str, float], records: Path) -> list[Record]:
    """Records of three seeds for every kind, whose errors are as told, a little more for every seed."""
    found = []
    for kind, mae in maes.items():
        model = read_record(one(records, kind))
        for seed in range(3):
            value = mae + 0.001 * seed
            test = model.test.model_copy(update={"mae": value, "worst": 1.0})
            config = {**model.config, "seed": seed}
            found.append(model.model_copy(update={"test": test, "seed": seed, "config": config}))
    return found


def test_less_is_better_in_ranks_differences_and_fronts(records):
    board = leaderboard(cells({"standard": 0.2, "shifted": 0.1}, records))
    assert board["kind"].tolist() == ["shifted", "standard"] and board["rank"].tolist() == [1, 2]
    assert board["test_mae"].tolist() == pytest.approx([255 * 0.101, 255 * 0.201])
    assert board["difference"][0] == pytest.approx(-25.5) and board["pairs"][0] == 3
    assert board["front_generalization_gap"].any() and board["per_gflop"].isna().all()
    assert board["front_inference"][0]
    assert board["test_top1"].isna().all() and board["published_difference"].isna().all()


def test_tables_and_site(records, tmp_path):
    """Beside a classification: each table has the columns of its own task."""
    folder = write(tmp_path / "records", *map(read_record, sorted(records.glob("*.json"))), make_record("metric"))
    (folder / "notes.yaml").write_text("brightness: A note.\n")
    built = build(folder, tmp_path / "board")
    assert built.collection.problems == [] and len(built.board) == 3
    first, second = (tmp_path / "board" / "leaderboard.md").read_text().split("## ")[1:]
    assert "Test MAE, levels" in first and "Worst, levels" in first and "Gap, levels" in first
    assert "Test MAE" not in second and "Test top-1, %" in second and "Test top-1" not in first
    page = (tmp_path / "board" / "brightness.html").read_text()
    row = built.board[built.board["kind"] == "shifted"].iloc[0]
    assert "Brightness of images" in page and f"{row.test_mae:.3f} ± {row.test_mae_std:.3f}" in page
    assert "lies below this one" in page and "paired by seed: levels." in page and "A note." in page
    assert "Mean absolute error on the test images against" in page
    assert "brightness.html" in (tmp_path / "board" / "index.html").read_text()
    picture = (tmp_path / "board" / "plots" / f"{row.group}.svg").read_text()
    assert "test MAE, levels" in picture and "generalization gap, levels" in picture
    record = read_record(one(records))
    run = (tmp_path / "board" / "runs" / f"{row.ids[0]}.html").read_text()
    for text in ("Test MAE", f"{255 * record.test.mae:.3f} levels", "Test MAE with noise", "Test mean absolute error"):
        assert text in run
    assert yaml.safe_load(recipe_of(record))["task"] == "brightness"
    assert "test_mae" in difference(folder, write(tmp_path / "other", make_record("metric")))


def test_a_task_without_a_gap(records, monkeypatch):
    """Nothing shows one: no column, no axis, and no record needs it."""

    class Gapless(Brightness):
        name = "gapless"
        gap = None

    monkeypatch.setitem(registry._TASKS, "gapless", Gapless())
    data = read_record(one(records)).model_dump(mode="json")
    config = {**data["config"], "task": "gapless"}
    record = Record.model_validate(
        {**data, "task": "gapless", "config": config, "id": config_id(config), "generalization_gap": None}
    )
    assert contradictions(record) == []
    board = leaderboard([record])
    assert board["generalization_gap"].isna().all() and not board["front_generalization_gap"].any()
    assert not any(column.heading.startswith("Gap") for column in columns_of("gapless"))
    assert "generalization" not in tradeoffs(board) and "generalization gap, levels" in tradeoffs(
        board.assign(task="brightness")
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"generalization_gap": 0.5}, "generalization_gap is 0.500000, but test minus training MAE is"),
        ({"test": {"worst": 0.0}}, "test: the worst error is below the mean one"),
        ({"test": {"images": 2}}, "test: 2 images were scored, the split has 32"),
        ({"test_hits": "AAAA"}, "task 'brightness' has no right answers"),
    ],
    ids=["gap", "scores", "images", "hits"],
)
def test_what_cannot_be_true(records, changes, message):
    record = read_record(one(records))
    assert contradictions(record) == []
    data = record.model_dump(mode="json")
    for name, value in changes.items():
        data[name] = {**data[name], **value} if isinstance(value, dict) else value
    assert any(message in problem for problem in contradictions(Record.model_validate(data)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"test": {"mae": 2.0, "worst": 2.0, "images": 32}}, "test.mae"),
        ({"test": {"top1": 0.5, "top5": 0.5, "loss": 0.1, "images": 32}}, "are no Errors"),
        ({"robustness": {"noise": 1.5}}, "robustness.noise"),
        ({"epochs": [{"epoch": 1, "lr": 0.1, "train_loss": 1.0, "seconds": 1.0}]}, "an epoch lacks test_mae"),
    ],
    ids=["range", "another task", "robustness", "epoch"],
)
def test_scores_are_checked_by_the_tasks_own_schema(records, change, message):
    data = read_record(one(records)).model_dump(mode="json")
    with pytest.raises(ValueError, match=message):
        Record.model_validate({**data, **change})


def test_submission(records, tmp_path):
    """Its network is built again and counted; a figure that is not its own is refused."""
    assert len(submit([one(records)], tmp_path / "results", allow_changed=True)) == 1
    record = read_record(one(records, seed=1))
    wrong = record.model_copy(update={"gflops": 1.0})
    write_record(tmp_path / "wrong.json", wrong)
    with pytest.raises(RecordError, match="gflops is 1.0"):
        submit([tmp_path / "wrong.json"], tmp_path / "results", allow_changed=True)
