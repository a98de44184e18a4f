"""From a leaderboard to the files of its site."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
import yaml

from metric_zoo.benchmarks.record import Record, record_key
from metric_zoo.benchmarks.schema import SPEEDS
from metric_zoo.benchmarks.tasks import get_task, tasks_for
from metric_zoo.leaderboards import plots
from metric_zoo.leaderboards.cells import cell_of, printable, printable_lines
from metric_zoo.leaderboards.collect import Collection
from metric_zoo.leaderboards.columns import number, score_text
from metric_zoo.leaderboards.paper_figures import figures_of
from metric_zoo.leaderboards.site.views import (
    Board,
    board_of,
    model_path,
    pictures_of,
    plots_of,
    run_path,
    table_of,
    task_boards,
)
from metric_zoo.leaderboards.soundness import is_marked
from metric_zoo.leaderboards.tables import groups_of

_HERE = Path(__file__).parent
_ASSETS = (
    *("assets/site.css", "assets/all-rows.css", "assets/site.js"),
    *("vendor/dataTables.min.js", "vendor/dataTables.dataTables.min.css", "vendor/dataTables.LICENSE.txt"),
)
_MOST_LISTED = 500
"""Failed runs, and files that were left out."""
DOWNLOADS = ("leaderboard.csv", "leaderboard.parquet", "leaderboard.json", "leaderboard.md", "leaderboard.tex")


def render_site(
    board: pd.DataFrame, collection: Collection, more: Sequence[Board] = (), notes: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Every file of the site by its path. Everything that comes from a record is escaped, and no path follows from one
    but those of `model_path` and of a run's hash.

    Args:
        board: from `leaderboard`, one row per cell.
        collection: whose records the board is of, for the runs' pages, the failures and the problems.
        more: further boards.
        notes: text for the boards of what is trained, by their names; paragraphs are divided by empty lines.
    """
    site = _Site(board, collection, more, notes or {})
    files = {f"assets/{Path(name).name}": (_HERE / name).read_text(encoding="utf-8") for name in _ASSETS}
    files["index.html"] = site.overview()
    for view in site.boards:
        files[f"{view.name}.html"] = site.page("board.html", view.title, "", view.name, board=view)
    for group in groups_of(board):
        files |= {path: plot.draw(group.rows) for path, plot in plots_of(group).items()}
    for model in _models(board):
        files |= site.model(model)
    for key, record in site.runs.items():
        files[run_path(key)] = site.run(record)
    return files


class _Site:
    def __init__(
        self, board: pd.DataFrame, collection: Collection, more: Sequence[Board], notes: Mapping[str, str]
    ) -> None:
        self._board, self._collection = board, collection
        self.runs = {record_key(record): record for record in collection.records}
        self.boards = [*task_boards(board, notes), *more]
        loader = jinja2.FileSystemLoader(_HERE / "templates")
        self._templates = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
        self._templates.filters["printable"] = printable
        self._templates.globals |= {
            "boards": self.boards,
            "run_path": run_path,
            "record_key": record_key,
            "model_path": model_path,
            "board_of": board_of,
            "score_of": _score,
        }

    def page(self, template: str, title: str, root: str, current: str = "", **values: Any) -> str:
        """One page; ``root`` leads from it to the site's folder, ``current`` is the board that it is part of."""
        return self._templates.get_template(template).render(title=title, root=root, current=current, **values)

    def overview(self) -> str:
        records = self._collection.records
        return self.page(
            "overview.html",
            "Overview",
            "",
            groups=[
                (group, _leaders(group.rows), *next(iter(pictures_of(group).items())))
                for group in groups_of(self._board)
            ],
            configurations=len(self._board),
            runs=sum(record.status == "ok" for record in records),
            failed=[record for record in records if record.status == "failed"],
            problems=self._collection.problems,
            most=_MOST_LISTED,
            newest=max((record.provenance.finished[:16].replace("T", " ") for record in records), default=""),
            models=_models(self._board),
            downloads=DOWNLOADS,
            published=figures_of(tasks_for(record.task for record in records)),
        )

    def model(self, model: str) -> dict[str, str]:
        """A model's page and its pictures."""
        path = model_path(model)
        files, parts = {}, []
        for group in groups_of(self._board.loc[self._board["model"] == model]):
            runs = [[self.runs[i] for i in ids] for ids in group.rows["ids"]]
            names = [f"{row['kind']} {row['options']}".strip() for row in group.rows.to_dict("records")]
            cells = zip(group.rows["kind"], names, runs, strict=True)
            trained = [(kind, name, cell) for kind, name, cell in cells if any(run.epochs for run in cell)]
            curves = f"plots/{Path(path).stem}-{group.id}.svg" if trained else None
            if curves:
                files[curves] = plots.learning_curves(trained)
            parts.append((group, table_of(group), list(zip(group.rows.to_dict("records"), runs, strict=True)), curves))
        files[path] = self.page("model.html", model, "../", board_of(parts[0][0]), parts=parts)
        return files

    def run(self, record: Record) -> str:
        title = f"{record.model}, {record.kind}, seed {record.seed}"
        cell = cell_of(record) if record.status == "ok" else None
        task, values = get_task(record.task), [epoch.test_score for epoch in record.epochs]
        return self.page(
            "run.html",
            printable(title),
            "../",
            task.page,
            record=record,
            cell=cell,
            marked=is_marked(record),
            facts=_facts(record),
            recipe=printable_lines(recipe_of(record)),
            curve=_sparkline(values),
            curve_title=f"Test {task.main.quantity or task.main.short}",
            curve_ends=[f"{value:.1f} {task.main.unit}".rstrip() for value in (values[:1] + values[-1:])],
        )


def _models(board: pd.DataFrame) -> list[str]:
    return [] if board.empty else sorted(set(board["model"]))


def _leaders(rows: pd.DataFrame) -> list[str]:
    """The kinds of the best rank, or of the best mean where nothing has a rank."""
    best = rows.loc[rows["rank"] == 1] if rows["rank"].notna().any() else rows.head(1)
    return [f"{row['kind']} ({row['model']}), {score_text(row)}" for row in best.to_dict("records")][:6]


def _score(record: Record) -> str:
    """What a run is ranked by, with its unit."""
    score = get_task(record.task).main
    return score.text(score.value(record.test))


def _facts(record: Record) -> list[tuple[str, str]]:
    """The figures of one run, for reading, in the words of the board's columns."""
    facts = _scores(record) if record.test is not None and record.train is not None else []
    if record.parameters is not None:
        facts.append(("Parameters, of them heads", f"{record.parameters.total:,}, {record.parameters.heads:,}"))
    if record.sampling is not None:
        facts.append(("Samples lie", record.sampling.told))
    for field, name in SPEEDS.items():
        speed = getattr(record, field)
        if speed is not None:
            spread = f"{speed.lower_quartile:,.0f} to {speed.upper_quartile:,.0f}"
            facts.append((name, f"{speed.median:,.0f} images/s ({spread}), batches of {speed.batch_size}"))
    if record.latency_ms is not None:
        facts.append(("Latency, p50 and p90", f"{record.latency_ms.p50:.2f} and {record.latency_ms.p90:.2f} ms"))
    facts.append(("Took", f"{record.wall_seconds:,.0f} s"))
    return facts


def _scores(record: Record) -> list[tuple[str, str]]:
    """What the run's task says of it."""
    task, gap = get_task(record.task), record.generalization_gap
    facts = task.facts(record.train, record.test)
    if task.gap is not None and gap is not None:
        shown = f"{number(task.gap.scale * gap, 2)} {task.gap.unit}".rstrip()
        facts.append((f"Generalization gap{task.gap.symbol}", shown))
    facts += [(f"Held-out {task.error_label}, lr {rate}", _loss(loss)) for rate, loss in record.searched.items()]
    for name, value in record.robustness.items():
        facts.append((f"{task.main.title} with {name}", task.main.text(task.robust_score(record.test, value))))
    return facts


def _loss(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.3e}"


def recipe_of(record: Record) -> str:
    """A recipe (YAML) of this run alone, from its configuration."""
    config = record.config
    recipe: dict[str, Any] = {"name": config.get("recipe", record.recipe)}
    recipe |= {name: config[name] for name in ("task", "data") if name in config}
    recipe |= record.learner.recipe_of(record.model, config)
    recipe |= {name: config[name] for name in ("train", "measure") if name in config}
    return yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True, width=110, default_flow_style=None)


def _sparkline(values: list[float], width: int = 240, height: int = 48) -> str:
    """Points of a polyline from the lowest value to the highest; empty for less than two."""
    if len(values) < 2:
        return ""
    low, high = min(values), max(values)
    step, scale = (width - 4) / (len(values) - 1), (height - 4) / ((high - low) or 1)
    return " ".join(f"{2 + i * step:.1f},{height - 2 - (v - low) * scale:.1f}" for i, v in enumerate(values))
