"""The sweep: what it covers, what it notices, and how it survives its workers."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass

import pandas as pd
import pytest
import timm
import torch
import torchvision
from torch import nn

import metric_zoo as mz
from metric_zoo.benchmarks.conversion import checks
from metric_zoo.benchmarks.conversion import sweep as sweep_module
from metric_zoo.benchmarks.conversion.architectures import Architecture, list_architectures
from metric_zoo.benchmarks.conversion.checks import check_architecture
from metric_zoo.benchmarks.conversion.result import Result
from metric_zoo.benchmarks.conversion.run import run_sweep
from metric_zoo.benchmarks.conversion.sweep import Limits, Sweep
from metric_zoo.benchmarks.conversion.table import summary, to_frame, to_markdown
from metric_zoo.nn import MetricConv2d

# --- what there is ----------------------------------------------------------------------------------------------------


def test_every_architecture_of_both_registries_is_listed_once():
    found = list_architectures()
    names = {source: [a.name for a in found if a.source == source] for source in ("timm", "torchvision")}
    assert sorted(names["timm"]) == sorted(timm.list_models())
    assert sorted(names["torchvision"]) == sorted(torchvision.models.list_models())


def test_a_sample_begins_with_one_of_every_family():
    families = {(a.source, a.family) for a in list_architectures()}
    sample = list_architectures(sample=len(families))
    assert {(a.source, a.family) for a in sample} == families
    assert {a.task for a in sample} == {"classification", "segmentation", "detection", "optical_flow", "video"}


def test_a_smaller_model_comes_first():
    order = [a.name for a in list_architectures(["timm"]) if a.family == "convnext"]
    assert order.index("convnext_atto") < order.index("convnext_base") < order.index("convnext_xxlarge")


# --- what a check notices ---------------------------------------------------------------------------------------------


class Net(nn.Module):
    """A stem, a convolution, a hidden branch."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv, self.branch = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3), nn.Conv2d(8, 8, 3, padding=1)
        self.gain = nn.Parameter(torch.zeros(8))
        self.idle = nn.Conv2d(8, 8, 3)

    def forward(self, x):
        x = self.conv(self.stem(x))
        return x + self.gain[:, None, None] * self.branch(x)


@dataclass(frozen=True)
class Own(Architecture):
    """An architecture of these tests: ``name`` says what its worker does."""

    def build(self) -> nn.Module:
        return BUILDERS[self.name]()


def hang() -> nn.Module:
    time.sleep(600)
    raise AssertionError


def devour() -> nn.Module:
    kept = []
    while True:
        kept.append(torch.ones(2**24, device="cpu"))  # 64 MiB at a time
        time.sleep(0.01)


def heavy() -> nn.Module:
    kept = torch.ones(2**27, device="cpu")  # half a GiB for a moment
    time.sleep(1.0)
    del kept
    return Net()


def broken() -> nn.Module:
    raise RuntimeError("cannot be built")


def die() -> nn.Module:
    os._exit(3)


BUILDERS = {
    "net": Net,
    "pointwise": lambda: nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1)),
    "hangs": hang,
    "devours": devour,
    "heavy": heavy,
    "broken": broken,
    "dies": die,
}


def own(name: str) -> Own:
    return Own("timm", name, "own")


def test_a_sound_conversion_passes():
    (result,) = check_architecture(Own("torchvision", "net", "own"), ["metric"])
    assert (result.status, result.convolutions, result.swapped) == ("ok", 4, 2)
    assert result.skipped == {"stem: the first convolution": 1, "not called in evaluation": 1}
    assert result.difference < 1e-5 and result.layer_difference < 1e-5 and result.heads == {"full": 2}


def test_a_kind_without_a_head_is_trained_too():
    (result,) = check_architecture(Own("torchvision", "net", "own"), ["active"])
    assert result.status == "ok" and not result.heads, result.message


def test_nothing_to_swap_is_no_failure():
    (result,) = check_architecture(own("pointwise"), ["shifted"])
    assert result.status == "nothing to swap" and result.skipped == {"1x1 kernel: one sample, nothing to spread": 2}


def sabotage_output(monkeypatch):
    """Wrong after the conversion's own proof, and only in the branch that starts at zero."""
    right = checks.convert

    def convert(model, *args, **kwargs):
        converted = right(model, *args, **kwargs)
        with torch.no_grad():
            converted.branch.sampler.bias += 0.5
        return converted

    monkeypatch.setattr(checks, "convert", convert)


def sabotage_keys(monkeypatch):
    monkeypatch.setattr(MetricConv2d, "_save_to_state_dict", lambda *a: None)


def sabotage_gradient(monkeypatch):
    right = MetricConv2d._operator
    monkeypatch.setattr(
        MetricConv2d, "_operator", lambda self, x, pads: right(self, x, pads).detach() + 0 * self.weight.sum()
    )


def sabotage_selection(monkeypatch):
    right = checks.convert
    monkeypatch.setattr(checks, "convert", lambda model, *a, **k: right(model, *a, where=["conv"], **k))


def sabotage_revert(monkeypatch):
    right = checks.revert

    def revert(model, **options):
        with torch.no_grad():
            model.conv.weight.mul_(1.0001)
        return right(model, **options)

    monkeypatch.setattr(checks, "revert", revert)


def sabotage_copy(monkeypatch):
    monkeypatch.setattr(MetricConv2d, "__deepcopy__", lambda self, memo: self, raising=False)


SABOTAGES = {
    "output unchanged": sabotage_output,
    "state dict": sabotage_keys,
    "training step": sabotage_gradient,
    "selection": sabotage_selection,
    "revert": sabotage_revert,
    "deepcopy": sabotage_copy,
}


@pytest.mark.parametrize("check", SABOTAGES)
def test_a_broken_promise_is_noticed(check, monkeypatch):
    SABOTAGES[check](monkeypatch)
    (result,) = check_architecture(Own("torchvision", "net", "own"), ["metric"])
    assert (result.status, result.check) == ("failed", check), result.message


def test_methods_of_timm_that_stop_working_are_noticed(monkeypatch):
    right = checks.convert

    def convert(model, *args, **kwargs):
        converted = right(model, *args, **kwargs)
        converted.reset_classifier = None
        return converted

    monkeypatch.setattr(checks, "convert", convert)
    (result,) = check_architecture(Architecture("timm", "test_resnet", "resnet"), ["metric"])
    assert (result.status, result.check) == ("failed", "timm methods") and "reset_classifier" in result.message


def test_one_failure_does_not_spoil_the_next_kind(monkeypatch):
    sabotage_gradient(monkeypatch)
    results = check_architecture(Own("torchvision", "net", "own"), ["metric", "shifted"])
    assert [r.status for r in results] == ["failed", "ok"]


# --- how it survives its workers --------------------------------------------------------------------------------------


def test_workers_that_fail_die_or_devour_are_told_apart(tmp_path):
    sweep = Sweep(["metric"], tmp_path / "table.csv")
    names = ["net", "broken", "dies", "devours"]
    limits = Limits(seconds=120, gigabytes=3.0, jobs=2)
    found = {r[0].model: r[0] for r in sweep.run([own(name) for name in names], limits)}
    assert found["net"].status == "ok"
    assert (found["broken"].status, found["broken"].check) == ("failed", "build")
    assert "cannot be built" in found["broken"].message
    assert found["dies"].status == "failed" and "exit code 3" in found["dies"].message
    assert found["devours"].status == "out of memory"


def test_a_worker_that_hangs_is_stopped(tmp_path):
    (results,) = Sweep(["metric", "shifted"], tmp_path / "table.csv").run([own("hangs")], Limits(seconds=3))
    assert [(r.kind, r.status) for r in results] == [("metric", "timed out"), ("shifted", "timed out")]


def test_a_worker_beyond_its_share_runs_again_alone(tmp_path):
    heavy_one = Own("torchvision", "heavy", "own")
    share = 0.9  # GiB: the frameworks take about half of it
    (results,) = Sweep(["metric"], tmp_path / "share.csv").run([heavy_one], Limits(seconds=60, gigabytes=share))
    assert results[0].status == "out of memory", "its share alone is too little"
    (results,) = Sweep(["metric"], tmp_path / "table.csv").run(
        [heavy_one], Limits(seconds=60, gigabytes=4 * share, jobs=4)
    )
    assert results[0].status == "ok"


NET, POINTWISE = (Own("torchvision", name, "own") for name in ("net", "pointwise"))


def kinds_known(path, architecture: Architecture) -> list[str]:
    return [result.kind for result in Sweep(["metric"], path).store.results(architecture)]


def test_a_sweep_goes_on_where_it_stopped(tmp_path):
    path = tmp_path / "new folder" / "table.csv"
    first = Sweep(["metric"], path)
    (done,) = next(first.run([NET, POINTWISE], Limits(jobs=1)))
    assert kinds_known(path, NET) + kinds_known(path, POINTWISE) == ["metric"], "written as it came"
    again = [r[0].model for r in Sweep(["metric"], path).run([NET, POINTWISE], Limits(jobs=1))]
    assert again == [{"net": "pointwise", "pointwise": "net"}[done.model]]


def test_only_missing_kinds_are_checked(tmp_path):
    path = tmp_path / "table.csv"
    list(Sweep(["metric"], path).run([NET], Limits()))
    (results,) = Sweep(["metric", "shifted"], path).run([NET], Limits())
    assert [r.kind for r in results] == ["shifted"]
    assert kinds_known(path, NET) == ["metric", "shifted"]


def test_a_row_that_was_cut_off_is_computed_again(tmp_path):
    path = tmp_path / "table.csv"
    list(Sweep(["metric"], path).run([NET, POINTWISE], Limits()))
    path.write_text(path.read_text()[:-60])
    assert len(kinds_known(path, NET) + kinds_known(path, POINTWISE)) == 1
    sweep = Sweep(["metric"], path)
    assert len(list(sweep.run([NET, POINTWISE], Limits()))) == 1
    sweep.store.tidy()
    assert len(pd.read_csv(path)) == 2


def test_results_of_other_versions_do_not_count(tmp_path, monkeypatch):
    path = tmp_path / "table.csv"
    list(Sweep(["metric"], path).run([NET], Limits()))
    monkeypatch.setattr(sweep_module, "package_versions", lambda packages: {"torch": "99"})
    assert Sweep(["metric"], path).missing(NET) == ("metric",)
    assert path.read_text().count("net") == 1, "but they stay until they are replaced"


def test_rows_read_back_as_they_were():
    (result,) = check_architecture(NET, ["metric"])
    result.difference, result.layer_difference, result.seconds = 1.25e-6, None, 2.5
    result.notes = 'with "quotes", commas\nand a line'
    assert Result.from_row(result.to_row()) == result


def test_a_table_of_something_else_is_refused(tmp_path):
    (tmp_path / "conversion.csv").write_text("model,accuracy\nresnet,1\n")
    with pytest.raises(mz.MetricZooError, match="is not a table of a conversion sweep"):
        run_sweep(None, None, 1, tmp_path)
    assert (tmp_path / "conversion.csv").read_text() == "model,accuracy\nresnet,1\n"


def test_failures_are_forgotten_on_demand(tmp_path):
    architectures = [NET, own("broken")]
    sweep = Sweep(["metric"], tmp_path / "table.csv")
    assert len(list(sweep.run(architectures, Limits(jobs=2)))) == 2
    sweep.forget_failures(architectures)
    assert [sweep.missing(a) for a in architectures] == [(), ("metric",)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sources": ["tim"]}, "source='tim'.*did you mean 'timm'"),
        ({"kinds": ["metrics"]}, "unknown kind 'metrics'"),
        ({"kinds": ["dilated"]}, "expected one that starts as the convolution"),
        ({"sample": 0}, "sample=0"),
        ({"jobs": 0}, "at least one job"),
        ({"seconds": -1.0}, "positive limits"),
    ],
)
def test_bad_arguments(arguments, message, tmp_path):
    with pytest.raises(mz.MetricZooError, match=message):
        run_sweep(**{"sources": None, "kinds": None, "sample": 1, "out": tmp_path, **arguments})
    assert not list(tmp_path.iterdir())


# --- the table --------------------------------------------------------------------------------------------------------


def test_the_table_has_a_row_per_architecture_and_says_what_did_not_pass():
    good = check_architecture(Own("torchvision", "net", "own"), ["metric", "shifted"])
    bad = check_architecture(own("broken"), ["metric", "shifted"])
    nothing = check_architecture(own("pointwise"), ["metric", "shifted"])
    frame = to_frame([good, bad, nothing])
    assert list(frame["model"]) == ["broken", "pointwise", "net"]
    net = frame[frame["model"] == "net"].iloc[0]
    assert net["metric"] == net["shifted"] == "ok" and net["swapped"] == 2
    assert net["skipped"] == "1 x stem: the first convolution; 1 x not called in evaluation"
    totals = summary(frame, ["metric", "shifted"]).set_index(["source", "kind"])
    assert tuple(totals.loc[("timm", "metric")][["architectures", "eligible", "passed"]]) == (2, 1, 0)
    assert totals.loc[("torchvision", "shifted")]["share"] == "100.0"
    text = to_markdown(frame, ["metric", "shifted"], "torch 2.x")
    assert "## Not passed" in text and "cannot be built" in text and "torch 2.x" in text
    assert text.count("| torchvision | net |") == 1


def test_a_kind_that_was_not_tried_is_an_empty_cell():
    tried = [check_architecture(own(name), ["metric"]) for name in ("broken", "pointwise")]
    frame = to_frame([*tried, check_architecture(NET, ["metric", "shifted"])])
    text = to_markdown(frame, ["metric", "shifted"], "torch 2.x")
    assert "| timm | broken | failed |  |" in text and "nan" not in text
    assert summary(frame, ["shifted"])["architectures"].tolist() == [0, 1]


def test_the_command_writes_both_files(tmp_path):
    import subprocess

    command = [sys.executable, "-m", "metric_zoo.cli", "conversion", "sweep", "--source", "timm", "--to", "shifted"]
    done = subprocess.run([*command, "--sample", "2", "--out", tmp_path], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    frame = pd.read_csv(tmp_path / "conversion.csv")
    assert len(frame) == 2 and set(frame["status"]) <= {"ok", "nothing to swap"}
    assert (tmp_path / "conversion.md").read_text().startswith("# Every architecture, converted")
    before = (tmp_path / "conversion.csv").read_text()
    again = subprocess.run([*command, "--sample", "1", "--out", tmp_path], capture_output=True, text=True, timeout=300)
    assert again.returncode == 0
    assert (tmp_path / "conversion.csv").read_text() == before, "nothing is computed again, and nothing is lost"
    wrong = subprocess.run([*command, "--sample", "0", "--out", tmp_path], capture_output=True, text=True, timeout=300)
    assert wrong.returncode == 2 and wrong.stderr.startswith("metric-zoo: sample=0")
