"""The sweep as a command: architectures in, table out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from tqdm import tqdm

from metric_zoo.benchmarks.conversion.architectures import list_architectures
from metric_zoo.benchmarks.conversion.store import Store
from metric_zoo.benchmarks.conversion.sweep import Limits, Sweep
from metric_zoo.benchmarks.conversion.table import summary, to_frame, to_markdown
from metric_zoo.errors import MetricZooError
from metric_zoo.files import replacing
from metric_zoo.nn.registry import featured_kinds, get_kind, list_kinds
from metric_zoo.zoo.registries import SOURCES

TABLE, MARKDOWN = "conversion.csv", "conversion.md"
DEFAULT_KINDS = featured_kinds()


def run_sweep(
    sources: Sequence[str] | None,
    kinds: Sequence[str] | None,
    sample: int | None,
    out: Path,
    jobs: int | None = None,
    seconds: float = 900.0,
    gigabytes: float | None = None,
    retry_failed: bool = False,
) -> pd.DataFrame:
    """Bring the table in ``out`` up to date.

    Args:
        sources, kinds: None is all sources and `DEFAULT_KINDS`.
        sample: as in `list_architectures`.
        out: receives the table: `TABLE`, where a sweep that was stopped goes on, and `MARKDOWN`.
        jobs, seconds, gigabytes: as in `Limits`; None is what this machine has.
        retry_failed: check again what did not pass before.

    Returns:
        The summary: per source and kind, how many architectures passed.

    Raises:
        MetricZooError: for an unknown source or kind, a kind that keeps nothing, or an impossible limit.
    """
    kinds = tuple(dict.fromkeys(kinds or DEFAULT_KINDS))
    for kind in kinds:
        if get_kind(kind).layer is None or not get_kind(kind).lossless:
            raise MetricZooError(f"kind {kind!r}: expected one that starts as the convolution it replaces")
    architectures = list_architectures(tuple(dict.fromkeys(sources or SOURCES)), sample)
    limits = Limits.of_this_machine(seconds, gigabytes, jobs)
    sweep = Sweep(kinds, out / TABLE)
    if retry_failed:
        sweep.forget_failures(architectures)
    found: Counter[str] = Counter()
    todo = sum(bool(sweep.missing(a)) for a in architectures)
    with tqdm(total=len(architectures), initial=len(architectures) - todo, unit="model", smoothing=0.05) as bar:
        for results in sweep.run(architectures, limits):
            found.update(result.status for result in results)
            bar.set_postfix(found)
            bar.update()
            for result in results:
                if not result.passed:
                    bar.write(
                        f"{result.source} {result.model} {result.kind}: {result.status} {result.check} {result.message}"
                    )
    return publish(sweep.store, out, kinds)


def publish(store: Store, out: Path, kinds: Sequence[str]) -> pd.DataFrame:
    """Sort the table in ``out`` and write its Markdown, with all that this and earlier sweeps found.

    Returns:
        The summary for ``kinds``.
    """
    store.tidy()
    known = [results for results in map(store.results, list_architectures()) if results]
    frame = to_frame(known)
    columns = [kind for kind in dict.fromkeys((*DEFAULT_KINDS, *list_kinds())) if kind in frame]
    with replacing(out / MARKDOWN) as path:
        made_with = f"{store.versions}, at {', '.join(store.commits())}"
        path.write_text(to_markdown(frame, columns, made_with), encoding="utf-8")
    return summary(frame, kinds)
