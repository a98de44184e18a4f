"""Make the page of sampling rules, what each number buys, from the committed records: ``make rules``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from torch import nn

from metric_zoo.explain.figure import panels, save
from metric_zoo.leaderboards.collect import collect
from metric_zoo.leaderboards.statistics import mcnemar, run_frame
from metric_zoo.nn.base import SampledConv2d
from metric_zoo.nn.registry import get_kind
from metric_zoo.text import markdown

DOCS = Path(__file__).parent
RECORDS = DOCS.parent / "leaderboards" / "results"
BASIS = "deformable"
"""The rule that every other is compared with, run by run."""
_INTRODUCTION = (DOCS / "rules-introduction.md").read_text(encoding="utf-8")


def page(records: Path = RECORDS) -> str:
    """The text, with a table for each recipe that compares rules."""
    frame = run_frame(collect(records).records)
    return _INTRODUCTION + "".join(_section(frame[frame["recipe"] == recipe]) for recipe in _recipes(frame))


def _recipes(frame: pd.DataFrame) -> list[str]:
    """Of classification, with networks that are converted to several rules."""
    ours = frame[frame["task"] == "classification"]
    return [name for name, runs in ours.groupby("recipe") if BASIS in set(runs["kind"])]


def _section(runs: pd.DataFrame) -> str:
    rows = sorted(_rules(runs), key=lambda row: -row["top1"])
    headings = [
        *("Rule", "Numbers a pixel", "Heads, k", "Test top-1, %", "Seeds", "Gap, points"),
        *("Against deformable", "McNemar p", "Training, img/s", "Inference, img/s"),
    ]
    dataset, recipe = runs.iloc[0]["dataset"], runs.iloc[0]["recipe"]
    table = markdown(headings, [_cells(row) for row in rows], [False] + [True] * (len(headings) - 1))
    return f"\n## {dataset}, recipe {recipe}\n\n{table}"


def _rules(runs: pd.DataFrame) -> list[dict[str, Any]]:
    """One for each kind and its options."""
    runs = runs.assign(options=runs["options"].fillna("").astype(str)).drop_duplicates(["kind", "options", "seed"])
    basis = runs[runs["kind"] == BASIS].set_index("seed")
    return [
        _rule(kind, options, own.set_index("seed"), basis) for (kind, options), own in runs.groupby(["kind", "options"])
    ]


def _rule(kind: str, options: str, runs: pd.DataFrame, basis: pd.DataFrame) -> dict[str, Any]:
    seeds = runs.index.intersection(basis.index) if kind != BASIS else runs.index[:0]
    return {
        "rule": f"{kind}, {options}" if options else kind,
        "numbers": _numbers(kind, options),
        "heads": runs["heads"].mean() / 1e3,
        "top1": runs["test_top1"].mean(),
        "deviation": runs["test_top1"].std(),
        "seeds": len(runs),
        "gap": runs["generalization_gap"].mean(),
        "difference": (runs.loc[seeds, "test_top1"] - basis.loc[seeds, "test_top1"]).mean() if len(seeds) else None,
        "mcnemar": max((mcnemar(runs.at[s, "hits"], basis.at[s, "hits"]) for s in seeds), default=None),
        "training": runs["training"].mean(),
        "inference": runs["inference"].mean(),
    }


def _numbers(kind: str, options: str) -> int:
    """What the head of a 3x3 layer predicts for every pixel."""
    found = get_kind(kind)
    if found.layer is None:
        return 0
    given = dict(part.split("=") for part in options.split(", ") if part)
    values = {name: {"true": True, "false": False}.get(v, int(v) if v.isdigit() else v) for name, v in given.items()}
    layer = found.build(nn.Conv2d(4, 8, 3, padding=1), 1, values)
    assert isinstance(layer, SampledConv2d)
    return 0 if layer.sampler is None else layer.sampler.out_channels


def _cells(row: dict[str, Any]) -> list[str]:
    spread = f" ± {row['deviation']:.2f}" if row["seeds"] > 1 else ""
    p = "" if row["mcnemar"] is None else "< 0.001" if row["mcnemar"] < 1e-3 else f"{row['mcnemar']:.3f}"
    difference = "" if row["difference"] is None else f"{row['difference']:+.2f}"
    return [
        *(row["rule"], str(row["numbers"]), f"{row['heads']:.1f}", f"{row['top1']:.2f}{spread}", str(row["seeds"])),
        *(f"{row['gap']:.2f}", difference, p, f"{row['training']:.0f}", f"{row['inference']:,.0f}"),
    ]


def draw(records: Path, path: Path) -> None:
    """Test accuracy over numbers a pixel, of every recipe."""
    frame = run_frame(collect(records).records)
    recipes = _recipes(frame)
    figure, axes = panels(1, len(recipes))
    for axis, recipe in zip(axes[0], recipes, strict=True):
        _scatter(axis, recipe, _rules(frame[frame["recipe"] == recipe]))
    save(figure, path)


def _scatter(axis: Any, recipe: str, rules: Sequence[dict[str, Any]]) -> None:
    for number, row in enumerate(sorted(rules, key=lambda row: row["numbers"])):
        kind = get_kind(row["rule"].split(",")[0])
        axis.errorbar(row["numbers"], row["top1"], row["deviation"], fmt=kind.marker, color=kind.colour, capsize=2)
        # Names of neighbours stand above and below.
        place = {"xytext": (4, 6 if number % 2 else -9), "textcoords": "offset points"}
        axis.annotate(row["rule"], (row["numbers"], row["top1"]), fontsize=6, **place)
    axis.margins(x=0.4)
    axis.set(xlabel="numbers a pixel", ylabel="test top-1, %", title=recipe)


if __name__ == "__main__":
    (DOCS / "rules.md").write_text(page(), encoding="utf-8")
    draw(RECORDS, DOCS / "rules.png")
