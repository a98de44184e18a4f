"""Statistics against the standard library, scipy, closed forms and brute force."""

from __future__ import annotations

import statistics
from math import comb

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from metric_zoo.leaderboards.statistics import interval, leaderboard, mcnemar, pareto_front, ranks
from tests.leaderboards.records import make_config, make_record, with_hits


def test_mean_and_sample_standard_deviation():
    scores = [0.90, 0.94, 0.91]
    board = leaderboard(
        [make_record(seed=s, test=t) for s, t in enumerate(scores)] + [make_record("shifted", test=0.9)]
    )
    assert list(board.kind) == ["metric", "shifted"] and list(board.runs) == [3, 1]
    assert board.test_top1[0] == pytest.approx(100 * statistics.mean(scores))
    assert board.test_top1_std[0] == pytest.approx(100 * statistics.stdev(scores))
    gaps = [0.95 - t for t in scores]
    assert board.generalization_gap[0] == pytest.approx(100 * statistics.mean(gaps))
    assert board.generalization_gap_std[0] == pytest.approx(100 * statistics.stdev(gaps))
    assert board.inference[0] == pytest.approx(101)
    assert board.per_gflop[0] == pytest.approx(board.test_top1[0] / 0.5)
    assert board.per_ms[0] == pytest.approx(board.test_top1[0] / 3)
    assert board.test_top1_std.isna()[1] and board["rank"].isna()[1]


def test_the_interval_is_where_resampled_means_lie():
    """All n^n resamples of a small sample, by brute force: their quantiles are what a bootstrap estimates."""
    values = np.array([90.0, 92.0, 97.0, 91.0])
    means = np.array(np.meshgrid(*[values] * 4)).reshape(4, -1).mean(0)
    low, high = interval(values)
    assert low == pytest.approx(np.quantile(means, 0.025), abs=0.25)
    assert high == pytest.approx(np.quantile(means, 0.975), abs=0.25)
    assert interval(values) == (low, high), "the same values, the same interval"
    assert interval(np.array([3.0, 3.0, 3.0])) == (3.0, 3.0)
    assert np.isnan(interval(np.array([3.0]))).all()


def test_difference_to_the_standard_is_paired_by_seed():
    """Seeds 0 to 2 of both; the standard's seed 3 has no partner."""
    ours, theirs = [0.90, 0.94, 0.92], [0.88, 0.90, 0.90, 0.10]
    records = [make_record(seed=s, test=t) for s, t in enumerate(ours)]
    records += [make_record("standard", seed=s, test=t) for s, t in enumerate(theirs)]
    records.append(make_record("shifted", model="resnet34"))  # without a standard convolution to compare with
    board = leaderboard(records).set_index("kind")
    differences = 100 * (np.array(ours) - np.array(theirs[:3]))
    assert board.difference["metric"] == pytest.approx(differences.mean()) and board.pairs["metric"] == 3
    assert (board.difference_low["metric"], board.difference_high["metric"]) == pytest.approx(interval(differences))
    assert board.difference[["standard", "shifted"]].isna().all()


def test_mcnemar_is_the_binomial_sum():
    """Closed form: twice the tail of a fair coin, over the images that one of both answers right."""
    draw = np.random.default_rng(0)
    ours, theirs = draw.random(200) < 0.8, draw.random(200) < 0.7
    b, c = int((ours & ~theirs).sum()), int((~ours & theirs).sum())
    tail = sum(comb(b + c, k) for k in range(min(b, c) + 1)) / 2 ** (b + c)
    assert mcnemar(ours, theirs) == pytest.approx(min(1.0, 2 * tail))
    assert mcnemar(ours, ours) == 1.0


def test_the_largest_p_value_of_the_seeds_counts():
    draw = np.random.default_rng(1)
    hits = {
        (kind, seed): draw.random(300) < share
        for kind, share in (("metric", 0.8), ("standard", 0.6))
        for seed in (0, 1)
    }
    records = [with_hits(make_record(kind, seed), found) for (kind, seed), found in hits.items()]
    board = leaderboard(records).set_index("kind")
    p_values = []
    for seed in (0, 1):
        table = pd.crosstab(hits["metric", seed], hits["standard", seed]).to_numpy()
        p_values.append(stats.binomtest(int(table[0, 1]), int(table[0, 1] + table[1, 0])).pvalue)
    assert board.mcnemar["metric"] == pytest.approx(max(p_values)) and np.isnan(board.mcnemar["standard"])


@pytest.mark.parametrize(("name", "other"), [("test_top1", "test_psnr"), ("test_psnr", "test_top1")])
def test_overlapping_intervals_are_ties(name, other):
    frame = pd.DataFrame({f"{name}_low": [9.0, 8.0, 5.0, np.nan], f"{name}_high": [10.0, 9.5, 7.0, np.nan]})
    task = {"test_top1": "classification", "test_psnr": "denoising"}[name]
    frame = frame.assign(**{f"{other}_low": np.nan, f"{other}_high": np.nan}, task=task)
    assert ranks(frame)[:3].tolist() == [1, 1, 3] and np.isnan(ranks(frame)[3])


def test_pareto_front_against_brute_force():
    draw = np.random.default_rng(2)
    gain, accuracy = draw.integers(0, 8, 60).astype(float), draw.integers(0, 8, 60).astype(float)
    gain[5] = np.nan
    expected = []
    for i in range(60):
        beaten = any(
            gain[j] >= gain[i] and accuracy[j] >= accuracy[i] and (gain[j], accuracy[j]) != (gain[i], accuracy[i])
            for j in range(60)
        )
        expected.append(not beaten and not np.isnan(gain[i]))
    assert pareto_front(gain, accuracy).tolist() == expected and any(expected)


def test_fronts_know_what_is_good():
    """More throughput, fewer parameters and a smaller gap are better."""
    fast = make_record("standard", test=0.8, train=0.95)
    small = make_record("shifted", test=0.9, train=0.95, parameters={"total": 500, "heads": 0, "trainable": 500})
    slow = small.inference.model_copy(update={"median": 60.0})
    board = leaderboard([fast, small.model_copy(update={"inference": slow})]).set_index("kind")
    assert board.front_inference.to_dict() == {"shifted": True, "standard": True}
    assert board.front_parameters.to_dict() == {"shifted": True, "standard": False}
    assert board.front_generalization_gap.to_dict() == {"shifted": True, "standard": False}


def test_machines_data_and_precision_are_not_mixed():
    data = make_record().dataset.model_copy(update={"fingerprint": "g"})
    records = [make_record(), make_record(seed=1, device="H200"), make_record(seed=2, dataset=data)]
    records.append(make_record(seed=3, config=make_config(seed=3, train={"epochs": 3, "precision": "bf16"})))
    versions = make_record().provenance.model_copy(update={"versions": {"torch": "2.11.0"}})
    records.append(make_record(seed=4, provenance=versions))
    board = leaderboard(records)
    assert list(board.runs) == [1] * 5 and board.group.nunique() == 5
    assert sorted(set(board.hardware)) == ["1 x H200", "1 x test, 2 threads"]
    assert sorted(set(board.precision)) == ["bfloat16", "float32"]


def test_where_speed_was_measured_again_is_the_hardware():
    timing = make_record().provenance.model_copy(update={"hardware": {"cpu": "quiet"}})
    board = leaderboard([make_record(), make_record(seed=1).model_copy(update={"timing": timing})])
    assert sorted(board.hardware) == ["1 x quiet, 2 threads", "1 x test, 2 threads"]


def test_a_run_measured_twice_is_no_second_seed():
    """Nor is the same run under another recipe's name."""
    again = [make_config(measure={"repeats": 99}), make_config(recipe="another")]
    board = leaderboard([make_record(), *(make_record(config=config) for config in again), make_record(seed=1)])
    assert list(board.runs) == [2] and board.seeds[0] == [0, 1]


def test_what_is_called_standard_but_is_not_is_no_baseline():
    """Whatever the order of the files."""
    frozen = make_config("standard") | {"kind": {"kind": "standard", "options": {}, "freeze_kernels": True}}
    records = [
        make_record(test=0.96),
        make_record("standard", test=0.9),
        make_record("standard", test=0.2, config=frozen),
    ]
    for order in (records, records[::-1]):
        board = leaderboard(order)
        assert board.difference[board.kind == "metric"].tolist() == [pytest.approx(6)]


def test_the_order_of_files_does_not_show():
    records = [make_record(k, s, test=0.8 + (s * s + len(k)) / 100) for k in ("metric", "standard") for s in range(4)]
    pd.testing.assert_frame_equal(leaderboard(records), leaderboard(records[::-1]))


def test_rows_that_differ_read_differently():
    def variant(**train):
        return make_record(config=make_config(train={"epochs": 3, "precision": "no", **train}))

    other_model = make_config() | {"model": {"name": "resnet18", "options": {"channels": [8, 8]}}}
    augmented = make_config(data={"name": "digits", "augment": "crop-flip"})
    records = [variant(), variant(lr=0.1), variant(precision="bf16"), make_record(config=other_model)]
    records.append(make_record(source="torchvision", config=make_config(source="torchvision")))
    records.append(make_record(config=augmented))
    board = leaderboard(records)
    assert len(board) == 6
    assert len(set(zip(board.model, board.architecture, board.options, board.protocol, strict=True))) == 6
    assert board.group.nunique() == 4, "another rate, precision or augmentation is another protocol"


@pytest.mark.parametrize(
    "config", [{"train": None}, {"kind": "x"}, {"model": 3, "data": [], "train": 1}, {"a": 1}], ids=str
)
def test_odd_configurations_do_not_break_the_board(config):
    assert len(leaderboard([make_record(config=config)])) == 1


PAPER = {"kind": "metric", "where": "paper", "init": "uniform", "options": {"sampling": "polar", "scale": [0.1, 1.5]}}
LONG = {"epochs": 240, "batch_size": 128, "optimizer": "adam", "lr": 1e-4, "weight_decay": 1e-4, "schedule": "cosine"}


@pytest.mark.parametrize(
    ("kind", "train", "published"),
    [
        ({}, {}, 93.07),
        ({"freeze_kernels": True}, {}, None),
        ({"where": None}, {}, None),
        ({"init": "pretrained"}, {}, None),
        ({"options": {"sampling": "onion", "scale": [0.1, 1.5]}}, {}, None),
        ({}, {"epochs": 3}, None),
    ],
    ids=["reproduced", "frozen", "elsewhere", "kernels kept", "another sampling", "shorter"],
)
def test_published_figures_stand_beside_what_reproduces_them(kind, train, published):
    dataset = make_record().dataset.model_copy(update={"name": "cifar10"})
    model = {"name": "resnet18", "source": "timm", "pretrained": True, "small_image_stem": True}
    config = make_config() | {"model": {**model, "options": {"output_stride": 16}}, "train": LONG | train}
    config |= {"data": {"name": "cifar10", "augment": "resized-crop-flip"}, "kind": PAPER | kind}
    record = make_record(test=0.94, config=config, weights="pretrained", options=config["kind"]["options"])
    board = leaderboard([record.model_copy(update={"dataset": dataset})])
    if published is None:
        assert board.published.isna()[0] and board.published_difference.isna()[0]
    else:
        assert board.published[0] == published and board.published_difference[0] == pytest.approx(94 - published)


def test_the_recipes_of_the_paper_are_what_its_figures_stand_beside():
    """All rows of paper-cifar10 with resnet18 but the ones that it says are not the paper's."""
    from metric_zoo.benchmarks.recipe import find_recipe, load_recipe
    from metric_zoo.benchmarks.runs import expand
    from metric_zoo.leaderboards.paper_figures import published_for

    runs = [
        run
        for run in expand(load_recipe(find_recipe("paper-cifar10")))
        if run.model.name == "resnet18" and not run.seed
    ]
    dataset = make_record().dataset.model_copy(update={"name": "cifar10"})
    found = []
    for run in runs:
        record = make_record(
            run.convolution.kind, config=run.config, options=run.config["kind"]["options"], weights="pretrained"
        )
        figure = published_for(record.model_copy(update={"dataset": dataset}))
        found.append((run.convolution.kind, run.convolution.init, figure.mean if figure else None))
    assert [mean for _, _, mean in found] == [92.64, 93.10, 92.58, 93.07, 93.07, None]
