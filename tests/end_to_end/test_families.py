"""One architecture of every family, both registries, converted in earnest. `make sweep` does it for all of them.

The kinds take turns, so that each family meets one and each kind a third of the families; `make test` sees every ninth,
`make test-slow` the others. What an architecture of a family costs, the committed table of the last complete sweep
tells; a family it does not know starts with its smallest.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from metric_zoo.benchmarks.conversion.architectures import Architecture, list_architectures
from metric_zoo.benchmarks.conversion.run import DEFAULT_KINDS
from metric_zoo.benchmarks.conversion.sweep import Limits, Sweep

TURNS = 9
TABLE = Path(__file__).parents[2] / "docs" / "conversion.csv"


def one_of_every_family() -> list[Architecture]:
    """The cheapest that has something to swap, or the cheapest."""
    table = pd.read_csv(TABLE)
    costs = table.groupby(["source", "model"]).agg(swapped=("swapped", "max"), seconds=("seconds", "mean"))
    rank = {key: (row.swapped == 0, row.seconds) for key, row in costs.iterrows()}
    families: dict[tuple[str, str], list[Architecture]] = {}
    for architecture in list_architectures():
        families.setdefault((architecture.source, architecture.family), []).append(architecture)
    unknown = (True, float("inf"))
    return [min(members, key=lambda a: rank.get((a.source, a.name), unknown)) for members in families.values()]


@pytest.mark.parametrize("turn", [0, *(pytest.param(turn, marks=pytest.mark.slow) for turn in range(1, TURNS))])
def test_every_family_converts(turn, tmp_path):
    kind = DEFAULT_KINDS[turn % len(DEFAULT_KINDS)]
    architectures = one_of_every_family()[turn::TURNS]
    results = [
        r for (r,) in Sweep([kind], tmp_path / "table.csv").run(architectures, Limits.of_this_machine(seconds=300))
    ]
    assert {r.model for r in results} == {a.name for a in architectures}
    wrong = {f"{r.source} {r.model}": f"{r.status} {r.check} {r.message}" for r in results if r.status != "ok"}
    wrong = {name: why for name, why in wrong.items() if not why.startswith("nothing to swap")}
    assert not wrong
    assert sum(r.status == "ok" for r in results) > len(results) / 2


def test_the_committed_table_promises_what_the_readme_says():
    """Everything passed but the one architecture that the README names, and nothing moved."""
    table = pd.read_csv(TABLE)
    left = table[~table["status"].isin(["ok", "nothing to swap"])]
    assert set(left["model"]) <= {"maxvit_xlarge_tf_512"} and set(left["status"]) <= {"timed out", "out of memory"}
    tried = table.groupby(["source", "kind"])["model"].nunique()
    assert (tried["timm"] == 1371).all() and (tried["torchvision"] == 121).all()
    assert not table.duplicated(["source", "model", "kind"]).any()
    assert (table["difference"].dropna() <= 1e-5).all() and (table["layer_difference"].dropna() <= 1e-5).all()
