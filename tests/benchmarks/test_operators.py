"""The operators' benchmark: every contender on every case, and a table that says what was measured."""

from __future__ import annotations

import json

import pytest
import torch

from metric_zoo import MetricZooError
from metric_zoo.benchmarks.operators import geodesics, layers, run
from metric_zoo.benchmarks.operators.cases import CASES, CONTENDERS, Case, contenders
from metric_zoo.benchmarks.operators.memory import extra_memory_mib
from metric_zoo.timing import alternate, quartiles
from tests.kinds import EVERY

CPU = torch.device("cpu")


def test_contenders_sample_alike():
    """All but shifted compute one function: torchvision's is the oracle; conv2d has its shape."""
    operators = contenders(Case(2, 4, 6, 8, 3), CPU, torch.float32)
    assert tuple(operators) == CONTENDERS
    outputs = {name: operator() for name, (operator, _) in operators.items()}
    for name in ("metric", "deformable", "torch backend"):
        torch.testing.assert_close(outputs[name], outputs["torchvision"], rtol=1e-4, atol=1e-4)
    assert {tuple(output.shape) for output in outputs.values()} == {(2, 6, 8, 8)}
    for _, leaves in operators.values():
        assert all(leaf.requires_grad and leaf.is_leaf for leaf in leaves)


def test_functions_take_turns_and_the_first_turn_does_not_count():
    calls = []
    seconds = alternate({name: (lambda name=name: calls.append(name)) for name in "ab"}, 3, CPU)
    assert calls == list("abababab") and [len(values) for values in seconds.values()] == [3, 3]
    calls.clear()
    seconds = alternate({name: (lambda name=name: calls.append(name)) for name in "ab"}, 9, CPU, patience=0)
    assert calls == list("abababab") and [len(values) for values in seconds.values()] == [3, 3]
    assert quartiles([1.0, 2.0, 3.0, 4.0, 5.0]) == (2.0, 3.0, 4.0)


def test_memory_is_what_a_function_adds():
    memory = extra_memory_mib(lambda: torch.ones(64 << 18), CPU)  # 64 MiB of float32
    if memory is None:
        pytest.skip("this system does not tell a process its memory")
    assert 60 <= memory <= 80


def test_table_and_json(tmp_path, monkeypatch):
    monkeypatch.setattr(run, "CASES", (Case(1, 2, 2, 5, 3), Case(1, 2, 2, 7, 3, 2)))
    threads = torch.get_num_threads()
    table = run.bench_operators(tmp_path, repeats=3)
    assert torch.get_num_threads() == threads
    report = json.loads((tmp_path / "operators.json").read_text())
    counts = {1, threads}
    assert len(report["results"]) == 2 * 2 * len(counts) * len(CONTENDERS)
    assert {result["threads"] for result in report["results"]} == counts
    assert all(result["milliseconds"]["median"] > 0 for result in report["results"])
    assert (tmp_path / run.MARKDOWN).read_text() == table and "depthwise" in table
    assert len(table.splitlines()) == 6 + 2 * 2 * len(counts)


def test_layers_of_every_kind(tmp_path, monkeypatch):
    monkeypatch.setattr(layers, "CASES", (Case(1, 4, 4, 6, 3), Case(1, 4, 4, 8, 7, 4)))
    table = layers.bench_layers(tmp_path, repeats=3)
    report = json.loads((tmp_path / "layers.json").read_text())
    found = {result["layer"]: result for result in report["results"]}
    assert {"conv2d", *EVERY} - {"geodesic"} <= set(found)
    assert all(result["milliseconds"]["median"] > 0 for result in found.values())
    numbers = {"conv2d": 0, "similar": 4, "affine": 6, "star": 5, "deformable": 18, "modulated": 27}
    dense = {result["layer"]: result["numbers_a_pixel"] for result in report["results"] if "k 3" in result["case"]}
    assert numbers.items() <= dense.items()
    assert (tmp_path / layers.MARKDOWN).read_text() == table and "| affine | 6 |" in table
    with pytest.raises(MetricZooError, match="at least 3"):
        layers.bench_layers(tmp_path, repeats=2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "cuda:99"}, "device 'cuda:99' is not available"),
        ({"dtype": "int32"}, "no floating-point type"),
        ({"repeats": 2}, "at least 3"),
        ({"only": "nothing"}, "no case contains 'nothing'"),
    ],
)
def test_errors(options, message, tmp_path):
    with pytest.raises(MetricZooError, match=message):
        run.bench_operators(tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_cases_cover_what_users_have():
    assert len({str(case) for case in CASES}) == len(CASES)
    assert any(case.groups == case.channels > 1 for case in CASES) and any(case.kernel == 31 for case in CASES)


def test_geodesics(tmp_path):
    table = geodesics.bench_geodesics(tmp_path, repeats=3, largest=128)
    report = json.loads((tmp_path / "geodesics.json").read_text())
    assert [row["side"] for row in report["rows"]] == [64, 128]
    assert all(0 < low <= median <= high for row in report["rows"] for low, median, high in [row["geodesic"]])
    assert table == (tmp_path / "geodesics.md").read_text() and "128 x 128" in table
    with pytest.raises(MetricZooError, match="two of the sizes"):
        geodesics.bench_geodesics(tmp_path, largest=64)


def test_the_exponent_of_a_power_law():
    rows = [{"side": side, "geodesic": (0, 3e-6 * side**3, 0)} for side in (64, 128, 512)]
    assert geodesics.exponent(rows) == pytest.approx(1.5)
