"""A sweep as a page: a row per architecture."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd

from metric_zoo.benchmarks.conversion.result import PASSED, Result, counts
from metric_zoo.text import markdown

_WORDS = {"source": "Source", "model": "Model", "family": "Family"}
_COUNTS = {"parameters": "Parameters, M", "convolutions": "Convolutions", "swapped": "Swapped"}
_FIGURES = {"difference": "Output moved", "layer_difference": "Worst layer moved", "seconds": "Seconds"}


def to_frame(results: Iterable[Sequence[Result]]) -> pd.DataFrame:
    """One row per architecture, sorted by source, family and name.

    Columns: source, model, family, parameters, convolutions, swapped; skipped (how many and why); a status per kind;
    difference and layer_difference (the largest over the kinds, as shares of the outputs' scales); seconds (of all
    kinds together); notes.
    """
    frame = pd.DataFrame([_row(kinds) for kinds in results])
    return frame.sort_values(["source", "family", "model"], ignore_index=True)


def _row(results: Sequence[Result]) -> dict[str, Any]:
    most = max(results, key=lambda r: r.swapped)
    notes = dict.fromkeys(f"{r.kind}: {text}" for r in results for text in (_failure(r), r.notes) if text)
    return {
        "source": most.source,
        "model": most.model,
        "family": most.family,
        "parameters": max(r.parameters for r in results),
        "convolutions": max(r.convolutions for r in results),
        "swapped": most.swapped,
        "skipped": counts(most.skipped),
        **{r.kind: r.status for r in results},
        "difference": _largest(r.difference for r in results),
        "layer_difference": _largest(r.layer_difference for r in results),
        "seconds": round(sum(r.seconds for r in results), 1),
        "notes": "; ".join(notes),
    }


def _failure(result: Result) -> str:
    return f"{result.check} ({result.message})" if result.check else ""


def _largest(values: Iterable[float | None]) -> float | None:
    return max((v for v in values if v is not None), default=None)


def summary(frame: pd.DataFrame, kinds: Sequence[str]) -> pd.DataFrame:
    """Per source and kind: architectures tried, those with an eligible convolution, and how many of these passed."""
    rows = []
    for source, part in frame.groupby("source"):
        for kind in kinds:
            tried = part[kind].dropna()
            eligible = tried[tried != "nothing to swap"]
            passed = int((eligible == "ok").sum())
            share = f"{100 * passed / len(eligible):.1f}" if len(eligible) else ""
            rows.append((source, kind, len(tried), len(eligible), passed, share))
    return pd.DataFrame(rows, columns=["source", "kind", "architectures", "eligible", "passed", "share"])


def to_markdown(frame: pd.DataFrame, kinds: Sequence[str], made_with: str) -> str:
    """The versions, the summary, what did not pass, and every architecture."""
    totals = summary(frame, kinds)
    headings = ["Source", "Kind", "Tried", "With an eligible convolution", "Passed every check", "Passed, %"]
    parts = [
        "# Every architecture, converted",
        f"Made by `metric-zoo conversion sweep` with {made_with}. Differences are shares of an output's largest "
        "magnitude; weights are random.",
        markdown(headings, totals.astype(str).itertuples(index=False), [False, False, True, True, True, True]),
    ]
    frame = frame.fillna(dict.fromkeys(kinds, ""))  # a kind that was not tried
    rest = frame.loc[~frame[list(kinds)].isin([*PASSED, ""]).all(axis=1)]
    if len(rest):
        rows = rest.loc[:, ["source", "model", *kinds, "notes"]].astype(str).itertuples(index=False)
        parts += ["## Not passed", markdown(["Source", "Model", *kinds, "Why"], rows, [False] * (len(kinds) + 3))]
    headings = {**_WORDS, **_COUNTS, "skipped": "Skipped", **{kind: kind for kind in kinds}, **_FIGURES}
    rows = _shown(frame)[list(headings)].itertuples(index=False)
    parts += ["## All", markdown([*headings.values()], rows, [h in _COUNTS or h in _FIGURES for h in headings])]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _shown(frame: pd.DataFrame) -> pd.DataFrame:
    shares = {
        name: frame[name].map(lambda v: "" if pd.isna(v) else f"{v:.1e}") for name in ("difference", "layer_difference")
    }
    return frame.assign(parameters=(frame["parameters"] / 1e6).map("{:.1f}".format), **shares).astype(str)
