"""What a run is of, and that runs keep the identities of the committed records."""

from __future__ import annotations

from pathlib import Path

import pytest

from metric_zoo import RecipeError
from metric_zoo.benchmarks.learners import LEARNERS, learner_of
from metric_zoo.benchmarks.recipe import find_recipe, load_recipe
from metric_zoo.benchmarks.runs import Run, expand
from metric_zoo.benchmarks.sweep import Plan
from metric_zoo.leaderboards.collect import collect

RESULTS = Path(__file__).parents[2] / "leaderboards" / "results"


def test_committed_runs_keep_their_ids():
    """The oracle is what was committed when they ran."""
    records = collect(RESULTS).records
    assert len(records) > 300
    for record in records:
        run = Run.model_validate(record.config)
        assert run.id == record.id and run.config == record.config
        assert run.learner is record.learner and run.learner.trains == bool(record.epochs)


def test_the_convolution_is_a_recipes_kind(tmp_path):
    """Outside Python its key stays: in configurations, and in what workers are told."""
    runs = expand(load_recipe(find_recipe("digits")))
    assert all(run.config["kind"]["kind"] == run.convolution.kind and "convolution" not in run.config for run in runs)
    plan = Plan(runs=runs, folder=tmp_path, running=tmp_path / "running")
    assert Plan.model_validate_json(plan.model_dump_json()).runs == runs
    assert [Run(**{**vars(run), "convolution": run.convolution}).id for run in runs] == [run.id for run in runs]


def test_every_learner_has_its_runs():
    """Of a recipe with 2 peers: networks come first, as they did."""
    recipe = load_recipe(find_recipe("paper-denoising"))
    counts = [len(list(learner.runs(recipe))) for learner in LEARNERS]
    assert counts == [len(recipe.models) * len(recipe.kinds) * len(recipe.seeds), len(recipe.peers) * len(recipe.seeds)]
    assert all(counts)
    runs = expand(recipe)
    trains = [run.learner.trains for run in runs]
    assert trains == sorted(trains, reverse=True) and {run.learner for run in runs} == set(LEARNERS)
    assert [run.model.source == "peer" for run in runs] == [not found for found in trains]


def test_peers_are_named_as_peers(write_recipe):
    with pytest.raises(RecipeError, match="'peer' is no source of networks; name peers in 'peers'"):
        load_recipe(write_recipe(models=[{"name": "gaussian", "source": "peer"}]))
    assert learner_of("metric") is learner_of("a kind of another package") is LEARNERS[0]
