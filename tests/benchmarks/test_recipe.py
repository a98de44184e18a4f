"""Recipes: expansion, identity, and one clear error for each mistake."""

from __future__ import annotations

import re

import pytest

from metric_zoo import RecipeError
from metric_zoo.benchmarks.recipe import RECIPES, find_recipe, load_recipe
from metric_zoo.benchmarks.runs import expand


def test_runs_are_models_times_kinds_times_seeds(write_recipe):
    runs = expand(load_recipe(write_recipe(kinds=["standard", "metric", "metric"], seeds=[0, 1, 2])))
    assert len(runs) == 6 and len({run.id for run in runs}) == 6
    assert [run.label for run in runs[:2]] == ["resnet10t standard seed 0", "resnet10t metric seed 0"]


@pytest.mark.parametrize(
    ("kind", "label"),
    [
        ({"kind": "metric"}, "metric"),
        ({"kind": "metric", "options": {"sampling": "zermelo"}}, "metric (sampling=zermelo)"),
        ({"kind": "star", "options": {"harmonics": 3, "shift": True}}, "star (harmonics=3, shift=true)"),
        ({"kind": "snake", "init": "uniform", "where": ["a", "b"]}, 'snake (where=["a", "b"], init=uniform)'),
        ({"kind": "shifted", "freeze_kernels": True}, "shifted (freeze_kernels=true)"),
        ({"kind": "shifted", "where": "x\n\x1b[2J" + 200 * "y"}, f"shifted (where=x[2J{90 * 'y'})"),
    ],
    ids=["plain", "an option", "options", "settings", "a flag", "long and unprintable"],
)
def test_runs_of_one_kind_are_told_apart(kind, label, write_recipe):
    (run,) = expand(load_recipe(write_recipe(kinds=[kind])))
    assert run.label == f"resnet10t {label} seed 0"


def test_identity_is_what_changes_the_figures(write_recipe):
    def identity(**changes):
        return expand(load_recipe(write_recipe(**changes)))[0].id

    data = {"name": "digits", "image_size": 16}
    assert identity() == identity(data={**data, "root": "/elsewhere"})
    assert identity() != identity(data={**data, "image_size": 8})
    assert identity() != identity(train={"epochs": 2})
    assert identity() != identity(seeds=[1])
    recipe = load_recipe(write_recipe())
    assert len({expand(recipe, p, d)[0].id for p, d in ((1, "cpu"), (2, "cpu"), (1, "cuda"))}) == 3


def test_what_processes_and_devices_allow(write_recipe):
    with pytest.raises(RecipeError, match="batch_size=63 cannot be shared out over 2 processes"):
        expand(load_recipe(write_recipe(train={"batch_size": 63})), processes=2)
    half = load_recipe(write_recipe(train={"precision": "fp16"}))
    with pytest.raises(RecipeError, match="needs a GPU"):
        expand(half)
    assert expand(half, device="cuda")


def test_packaged_recipes_are_valid():
    names = [path.stem for path in RECIPES.glob("*.yaml")]
    assert "digits" in names
    for name in names:
        assert expand(load_recipe(find_recipe(name)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epoch": 3}, "unknown key 'epoch'"),
        ({"seed": [0]}, "unknown key 'seed'; did you mean 'seeds'"),
        ({"train": {"epocs": 3}}, "unknown key 'epocs' in train; did you mean 'epochs'"),
        ({"models": [{"nam": "resnet18"}]}, "models"),
        ({"train": {"epochs": 0}}, "train.epochs: .*greater than or equal to 1, got 0"),
        ({"train": {"optimizer": "lion"}}, "train.optimizer"),
        ({"kinds": []}, "kinds"),
        ({"kinds": 5}, "kinds: .*list.*got 5"),
        ({"kinds": "metric"}, "kinds: .*list.*got 'metric'"),
        ({"models": None}, "models: .*list"),
        ({"kinds": [{"kind": "metric", "options": {"scale": 5}}]}, "scale=5"),
        ({"kinds": ["metrik"]}, "unknown kind 'metrik'; did you mean 'metric'"),
        ({"kinds": [{"kind": "metric", "options": {"eps": 1}}]}, "has no option 'eps'"),
        ({"kinds": [{"kind": "metric", "options": {"eps_omega": 7}}]}, "eps_omega=7"),
    ],
    ids=str,
)
def test_mistakes(write_recipe, changes, message):
    with pytest.raises(RecipeError, match=message):
        expand(load_recipe(write_recipe(**changes)))


def test_all_mistakes_are_shown(write_recipe):
    """Each with its place, its value and the nearest key; those of kinds, too, which are looked at by others."""
    changes = {
        "epoch": 3, "lr": 0.1, "data": {"name": "digits", "augmentation": "none"},
        "kinds": ["metrik", {"kind": "metric", "wher": "x"}, *({"kind": "metric", "where": w} for w in ([5], 5))],
        "train": {"epochs": 0, "optimizer": "adamww", "accumulate": "all", "batchsize": 3},
    }  # fmt: skip
    with pytest.raises(RecipeError) as refused:
        load_recipe(write_recipe(**changes))
    title, *lines = str(refused.value).splitlines()
    assert title.endswith("recipe.yaml has 11 mistakes:") and len(lines) == 11
    expected = [
        r"unknown key 'augmentation' in data; did you mean 'augment'\?; .*got 'none'",
        r"unknown key 'wher' in kinds.1; did you mean 'where'\?; .*got 'x'",
        "kinds.2.where.0: .*got 5",
        "kinds.3.where: .* or .*got 5",
        "train.epochs: .*got 0",
        "train.accumulate: .*'auto', got 'all'",
        r"train.optimizer: .*got 'adamww'; did you mean 'adamw'\?",
        r"unknown key 'batchsize' in train; did you mean 'batch_size'\?; .*got 3",
        "unknown key 'epoch'.*got 3",
        r"unknown key 'lr'; did you mean 'train.lr'\?; .*got 0.1",
        "kinds.0: unknown kind 'metrik'; did you mean 'metric'",
    ]
    for line, pattern in zip(lines, expected, strict=True):
        assert re.match(f"  {pattern}", line), line


def test_more_mistakes_than_anybody_reads(write_recipe):
    with pytest.raises(RecipeError, match=r"has 1000 mistakes:(\n.*){20}\n  and 980 more$"):
        load_recipe(
            write_recipe(**{f"k{number}": "x" * 10_00 for number in range(100)}, train={f"k{n}": 1 for n in range(900)})
        )


def test_mistakes_of_several_kinds(write_recipe):
    """That take reading the registry."""
    kinds = ["metrik", {"kind": "metric", "options": {"scale": 5}}, {"kind": "standard", "freeze_kernels": True}]
    recipe = load_recipe(write_recipe(kinds=kinds, train={"batch_size": 63, "precision": "fp16"}))
    with pytest.raises(RecipeError, match="has 5 mistakes") as refused:
        expand(recipe, processes=2)
    for part in (
        "kinds.0: unknown kind",
        "kinds.1: scale=5",
        "kinds.2: .*leave freeze_kernels out",
        "=63",
        "needs a GPU",
    ):
        assert re.search(part, str(refused.value))
    with pytest.raises(RecipeError, match="num-processes is 0"):
        expand(recipe, processes=0)


@pytest.mark.parametrize(("text", "message"), [("", "is empty"), ("a: [", "is not YAML"), ("- a", "or a list")])
def test_unreadable_files(tmp_path, text, message):
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    with pytest.raises(RecipeError, match=message):
        load_recipe(path)


def test_missing_files_and_names(tmp_path):
    with pytest.raises(RecipeError, match="cannot be read"):
        load_recipe(tmp_path / "none.yaml")
    with pytest.raises(RecipeError, match=r"'none' does not exist; .* one of: .*digits"):
        find_recipe("none")


def test_a_recipe_extends_another(write_recipe, tmp_path):
    """Mappings are merged, lists and values replaced; packaged names work too."""
    write_recipe(train={"epochs": 7, "lr": 0.5})
    child = tmp_path / "child.yaml"
    child.write_text("extends: recipe.yaml\nname: child\ntrain: {lr: 0.25}\nseeds: 3\n")
    recipe = load_recipe(child)
    assert (recipe.name, recipe.train.epochs, recipe.train.lr, recipe.seeds) == ("child", 7, 0.25, [0, 1, 2])
    assert [kind.kind for kind in recipe.kinds] == ["standard", "shifted"]
    grandchild = tmp_path / "grandchild.yaml"
    grandchild.write_text("extends: child.yaml\nname: grandchild\nkinds: [active]\n")
    assert [kind.kind for kind in load_recipe(grandchild).kinds] == ["active"]
    packaged = tmp_path / "packaged.yaml"
    packaged.write_text("extends: digits\nname: mine\n")
    assert load_recipe(packaged).data.name == "digits"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("extends: loop.yaml\nname: a\n", "extends itself"),
        ("extends: nowhere\nname: a\n", "'nowhere' does not exist"),
        ("extends: [digits]\nname: a\n", "expected the name of a recipe"),
        ("extends: digits\nname: a\ntrain: {schedule: step}\n", "'step' and 'milestones' go together"),
    ],
)
def test_extensions_that_cannot_be(tmp_path, text, message):
    path = tmp_path / "loop.yaml"
    path.write_text(text)
    with pytest.raises(RecipeError, match=message):
        load_recipe(path)


def test_the_papers_networks_can_be_built():
    """ResNet18 of every kind in the paper's recipes, on an image of their size."""
    from metric_zoo.benchmarks.model import build_model
    from metric_zoo.benchmarks.schema import DatasetInfo
    from metric_zoo.nn.base import SampledConv2d

    data = DatasetInfo(name="x", train_size=1, test_size=1, classes=10, image_shape=(3, 32, 32), fingerprint="")
    for name in ("paper-cifar10", "paper-cifar10-frozen"):
        for run in expand(load_recipe(find_recipe(name))):
            if run.model.name != "resnet18" or run.seed:
                continue
            offline = run.model_copy(update={"model": run.model.model_copy(update={"pretrained": False})})
            model = build_model(offline, data)
            converted = sum(isinstance(m, SampledConv2d) for m in model.modules())
            assert converted == (0 if run.convolution.kind == "standard" else 12)
            assert model.layer4[1].conv2.dilation == (2, 2)
