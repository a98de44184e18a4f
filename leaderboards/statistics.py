"""From runs to rows: means, intervals, differences to the standard convolution, ranks, Pareto fronts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import stats

from metric_zoo.benchmarks.hits import unpack_hits
from metric_zoo.benchmarks.recipe_sections import UNCONVERTED
from metric_zoo.benchmarks.record import Record, record_key
from metric_zoo.benchmarks.tasks import Task, get_task, tasks_for
from metric_zoo.leaderboards.cells import cell_of, printable
from metric_zoo.leaderboards.paper_figures import published_for
from metric_zoo.leaderboards.soundness import is_marked

CONFIDENCE = 0.95

_MEANS = (
    *("inference", "inference_single", "training", "latency_ms", "peak_memory_mib", "activation_memory_mib"),
    *("parameters", "heads", "gflops", "kernel_size"),
)
_RESAMPLES = 2000

FRONTS = {"inference": 1, "parameters": -1, "generalization_gap": -1}
"""Columns that quality is traded against: 1 where more is better."""


@dataclass(frozen=True)
class Figures:
    """The columns that tasks declare: those with a deviation and an interval, and those that are means alone."""

    spread: list[str]
    means: list[str]

    @classmethod
    def of(cls, tasks: Sequence[Task]) -> Figures:
        """Each once, in the order of the tasks."""
        further = [figure for task in tasks for figure in task.figures]
        spread = [*(task.main.name for task in tasks), "generalization_gap"]
        spread += [figure.name for figure in further if figure.has_spread]
        means = [figure.name for figure in further if not figure.has_spread]
        return cls(list(dict.fromkeys(spread)), list(dict.fromkeys(means)))


def score(rows: pd.DataFrame, suffix: str = "") -> pd.Series:
    """What rows are ranked by, in its own unit: the main score of each row's task.

    Args:
        suffix: ``"_std"``, ``"_low"``, ``"_high"``, or none for the mean.
    """
    found = [part[f"{get_task(str(task)).main.name}{suffix}"].astype(float) for task, part in rows.groupby("task")]
    return pd.concat(found)[rows.index]


def gain(rows: pd.DataFrame) -> pd.Series:
    """`score`, turned so that more is better."""
    return score(rows) * _signs(rows)


def _signs(rows: pd.DataFrame) -> pd.Series:
    return rows["task"].map(lambda task: get_task(task).main.gain(1.0))


def run_frame(records: Sequence[Record]) -> pd.DataFrame:
    """One row per successful run, its figures as tables have them, throughput in images per second."""
    figures = Figures.of(_tasks(records))
    unknown = dict.fromkeys([*figures.spread, *figures.means])
    return pd.DataFrame([unknown | _run_row(record) for record in records if record.status == "ok"])


def _tasks(records: Sequence[Record]) -> list[Task]:
    return tasks_for(record.task for record in records)


def _run_row(record: Record) -> dict:
    cell = asdict(cell_of(record))
    published, test, parameters = published_for(record), record.test, record.parameters
    assert test is not None and parameters is not None, "the run went well"
    return {
        **{("cell" if name == "id" else name): value for name, value in cell.items()},
        "run": record_key(record),
        "recipe": printable(record.recipe),
        "seed": record.seed,
        **get_task(record.task).cell_figures(record),
        "hits": unpack_hits(record.test_hits, test.images) if record.test_hits else None,
        "parameters": parameters.total,
        "heads": parameters.heads,
        "gflops": record.gflops,
        "kernel_size": _kernel_size(record),
        "inference": record.inference.median if record.inference else None,
        "inference_single": record.inference_single.median if record.inference_single else None,
        "training": record.training.median if record.training else None,
        "latency_ms": record.latency_ms.p50 if record.latency_ms else None,
        "peak_memory_mib": record.peak_memory_mib,
        "activation_memory_mib": record.activation_memory_mib,
        "published": published.mean if published else None,
        "published_std": published.deviation if published else None,
        "changed": is_marked(record),
    }


def _kernel_size(record: Record) -> int | None:
    """Of a network that is one layer."""
    options = record.section("model").get("options")
    size = options.get("kernel_size") if isinstance(options, dict) else None
    own = record.source == "metric-zoo" and type(size) is int and 0 < size < 10_000
    return size if own else None


def leaderboard(records: Sequence[Record]) -> pd.DataFrame:
    """One row per cell, best first within its group.

    Columns beside those of `metric_zoo.leaderboards.cells.Cell`: ``runs`` (how many), ``seeds``, ``ids``;
    the main score of every task (such as ``test_top1``), ``generalization_gap`` and other figures that a task declares
    so with ``_std`` (sample standard deviation) and ``_low``, ``_high`` (95% bootstrap interval of the mean), NaN for a
    single run; ``difference`` to the standard
    convolution in the same setting, paired by seed, with its interval, and ``mcnemar`` (the largest of the seeds'
    p-values); ``rank`` within the group, where overlapping intervals are ties; ``per_gflop`` and ``per_ms``;
    ``front_...`` for every key of `FRONTS`; ``published`` and the ``published_difference``; ``changed``: whether a
    run's source was not a clean commit; and means of everything else.
    """
    runs, tasks = run_frame(records), _tasks(records)
    if runs.empty:
        return runs
    # A seed counts once in a cell, whatever else there is of it; which one does not depend on the files' order.
    runs = runs.sort_values(["cell", "seed", "run"]).drop_duplicates(["cell", "seed"])
    figures = Figures.of(tasks)
    board = pd.DataFrame([_cell_row(cell, figures) for _, cell in runs.groupby("cell", sort=False)])
    board = board.join(_differences(board, runs))
    ratios = score(board).where(board["task"].isin([task.name for task in tasks if task.main.per]))
    for name, over in (("per_gflop", "gflops"), ("per_ms", "latency_ms")):
        board[name] = ratios / board[over].where(board[over] > 0)
    board["published_difference"] = _beside_published(board) - board["published"]
    for column, statistic in {"rank": ranks, **{f"front_{name}": _front(name) for name in FRONTS}}.items():
        board[column] = pd.concat([statistic(group) for _, group in board.groupby("group")])
    order = ["task", "dataset", "version", "protocol", "setting", "group", "score", "kind", "cell"]
    board = board.assign(score=gain(board))
    ascending = [name != "score" for name in order]
    return board.sort_values(order, ascending=ascending, ignore_index=True).drop(columns="score")


def _beside_published(board: pd.DataFrame) -> pd.Series:
    """What is compared with a paper's figure, on its scale."""
    found = pd.Series(np.nan, index=board.index)
    for name, rows in board.groupby("task"):
        if (published := get_task(str(name)).published) is not None:
            found[rows.index] = published.scale * rows[published.beside].astype(float)
    return found


def _cell_row(runs: pd.DataFrame, figures: Figures) -> dict:
    row = runs.iloc[0][["cell", *_TEXT]].to_dict()
    row |= {"runs": len(runs), "seeds": runs["seed"].tolist(), "ids": runs["run"].tolist()}
    for name in figures.spread:
        values = runs[name].astype(float).dropna().to_numpy()
        low, high = interval(values)
        row |= {name: values.mean() if len(values) else np.nan, f"{name}_low": low, f"{name}_high": high}
        row[f"{name}_std"] = values.std(ddof=1) if len(values) > 1 else np.nan
    row |= {name: runs[name].astype(float).mean() for name in (*figures.means, *_MEANS)}
    row |= {name: runs[name].astype(float).mean() for name in ("published", "published_std")}
    row["recipe"] = ", ".join(sorted(set(runs["recipe"])))
    return {**row, "changed": bool(runs["changed"].any())}


_TEXT = ("group", "baseline", "task", "dataset", "version", "model", "architecture", "weights", "kind", "options",
         "hardware", "precision", "setting", "protocol")  # fmt: skip


def interval(values: np.ndarray) -> tuple[float, float]:
    """The 95% percentile-bootstrap interval of the mean, the same for the same values; NaN for less than two."""
    if len(values) < 2:
        return np.nan, np.nan
    found = stats.bootstrap(
        (values,), np.mean, confidence_level=CONFIDENCE, n_resamples=_RESAMPLES, method="percentile", rng=0
    ).confidence_interval
    return float(found.low), float(found.high)


def _differences(board: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """Columns ``difference``, its interval, ``pairs`` and ``mcnemar`` for every row of the board."""
    standard = runs[(runs["kind"] == UNCONVERTED) & (runs["options"] == "")]  # one cell for every baseline
    baselines = {key: part.set_index("seed") for key, part in standard.groupby("baseline")}
    cells = {key: part.set_index("seed") for key, part in runs.groupby("cell")}
    rows = []
    for cell, kind, baseline in zip(board["cell"], board["kind"], board["baseline"], strict=True):
        base = baselines.get(baseline) if kind != UNCONVERTED else None
        rows.append({} if base is None else _difference(cells[cell], base))
    columns = ["difference", "difference_low", "difference_high", "pairs", "mcnemar"]
    return pd.DataFrame(rows, index=board.index, columns=columns).astype(float)


def _difference(ours: pd.DataFrame, standard: pd.DataFrame) -> dict:
    seeds = ours.index.intersection(standard.index).sort_values()
    if seeds.empty:
        return {}
    differences = (score(ours.loc[seeds]) - score(standard.loc[seeds])).to_numpy()
    low, high = interval(differences)
    row = {"difference": differences.mean(), "difference_low": low, "difference_high": high, "pairs": len(seeds)}
    pairs = [(ours.at[seed, "hits"], standard.at[seed, "hits"]) for seed in seeds]
    if all(a is not None and b is not None and len(a) == len(b) for a, b in pairs):
        row["mcnemar"] = max(mcnemar(a, b) for a, b in pairs)
    return row


def mcnemar(ours: np.ndarray, theirs: np.ndarray) -> float:
    """The exact two-sided p-value of McNemar's test that two networks are right equally often.

    Only images count that one answers right and the other does not; if the networks are equally good, each of these
    falls to either with probability 1/2.

    Args:
        ours, theirs: ``(images,)`` bool, which of the same images were right.
    """
    only_ours, only_theirs = int((ours & ~theirs).sum()), int((theirs & ~ours).sum())
    if only_ours + only_theirs == 0:
        return 1.0
    return float(stats.binomtest(only_ours, only_ours + only_theirs, 0.5).pvalue)


def ranks(group: pd.DataFrame) -> pd.Series:
    """One plus the number of cells that are better beyond doubt: whose interval lies beyond the whole of this one's.

    A single run has no interval and no rank.
    """
    ends = np.stack([score(group, end) * _signs(group) for end in ("_low", "_high")])
    low, high = ends.min(0), ends.max(0)  # of what is better where it is less, the ends change places
    better = (low[None, :] > high[:, None]).sum(1)
    return pd.Series(np.where(np.isnan(low), np.nan, 1.0 + better), index=group.index)


def _front(name: str):
    def front(group: pd.DataFrame) -> pd.Series:
        return pd.Series(pareto_front(FRONTS[name] * group[name], gain(group)), index=group.index)

    return front


def pareto_front(gain: ArrayLike, accuracy: ArrayLike) -> np.ndarray:
    """Which points no other one beats: at least as good in both, and better in one. A point with a NaN is not on it."""
    x, y = np.asarray(gain, float), np.asarray(accuracy, float)
    as_good = (x[None, :] >= x[:, None]) & (y[None, :] >= y[:, None])
    better = (x[None, :] > x[:, None]) | (y[None, :] > y[:, None])
    return ~(as_good & better).any(1) & ~np.isnan(x) & ~np.isnan(y)
