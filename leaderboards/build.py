"""Build a leaderboard folder from a folder of records."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import yaml

from metric_zoo.errors import MetricZooError, RecordError
from metric_zoo.leaderboards.cells import printable, printable_lines
from metric_zoo.leaderboards.collect import Collection, collect, shown
from metric_zoo.leaderboards.site import render_site
from metric_zoo.leaderboards.site.views import MEASURED, Board, trained_boards
from metric_zoo.leaderboards.statistics import leaderboard
from metric_zoo.leaderboards.tables import to_csv, to_json, to_latex, to_markdown, to_parquet
from metric_zoo.reading import read_text

_MARKER = "leaderboard.json"
"""A folder that holds it, and nothing that is not of a leaderboard, may be replaced by a newer one."""
_OWN = {"assets", "models", "plots", "runs", ".nojekyll"}
"""What an older leaderboard may hold and this one need not, pages of boards aside."""
NOTES = "notes.yaml"
"""Beside records: what to say about a board, by its name."""
_MOST_NOTES = 2**20


@dataclass(frozen=True)
class Built:
    """A leaderboard, one row per cell, and what it was built from."""

    board: pd.DataFrame
    collection: Collection


def build(records: Path, out: Path, more: Sequence[Board] = (), extra: Mapping[str, str] | None = None) -> Built:
    """Write tables (CSV, Parquet, JSON, Markdown, LaTeX) and a site into ``out``; the same records, the same bytes.

    The folder appears whole or stays as it was. Files that are no sound records are left out, and listed on the site.

    Args:
        records: folder of records, searched below too.
        out: new, empty, or an older leaderboard, which is replaced.
        more: further boards for the site.
        extra: further files, text by path.

    Raises:
        RecordError: if there is no sound record of a run that went well.
        MetricZooError: if ``out`` holds something else or cannot be written.
    """
    notes = _notes(records)

    def render(some: Collection) -> tuple[pd.DataFrame, dict[str, bytes]]:
        board = leaderboard(some.records)
        files = {**_tables(board), **render_site(board, some, more, notes)}
        return board, {name: text if isinstance(text, bytes) else text.encode() for name, text in files.items()}

    (board, files), collection = shown(collect(records), render)
    if board.empty:
        raise RecordError(_nothing(records, collection))
    write_folder(out, {**files, **(extra or {})})
    return Built(board, collection)


def _tables(board: pd.DataFrame) -> dict[str, str | bytes]:
    if board.empty:
        return {}
    return {
        "leaderboard.csv": to_csv(board),
        "leaderboard.parquet": to_parquet(board),
        _MARKER: to_json(board),
        "leaderboard.md": to_markdown(board),
        "leaderboard.tex": to_latex(board),
    }


def _notes(folder: Path) -> dict[str, str]:
    """Text for boards.

    Raises:
        RecordError: for a file that is no mapping of boards' names to text.
    """
    path = folder / NOTES
    if not path.exists():
        return {}
    try:
        found = yaml.safe_load(read_text(path, _MOST_NOTES))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise RecordError(f"{path} cannot be read: {' '.join(str(error).split())[:200]}") from None
    if not isinstance(found, dict) or not all(isinstance(text, str) for text in found.values()):
        raise RecordError(f"{path} is no mapping of text by board")
    boards = trained_boards()
    if unknown := sorted(map(str, found.keys() - boards.keys())):
        raise RecordError(f"{path}: there is no board {unknown[0]!r}; known: {', '.join(boards)}")
    return {name: printable_lines(text) for name, text in found.items()}


def _nothing(records: Path, collection: Collection) -> str:
    if collection.problems:
        named = [f"{problem.file}: {problem.reason}" for problem in collection.problems[:3]]
        more = f"; and {len(collection.problems) - 3} more" if len(collection.problems) > 3 else ""
        return f"{records} holds no sound record: {'; '.join(named)}{more}"
    failure = collection.records[0].failure
    assert failure is not None, "none went well"
    count = len(collection.records)
    why = printable(f"{failure.type}: {failure.message}", 300)
    return f"all {count} runs in {records} failed, the first by {why}"


def write_folder(out: Path, files: Mapping[str, str | bytes]) -> None:
    """Write all files beside ``out``, then let them take its place.

    Raises:
        MetricZooError: if ``out`` is a file or holds something else than a leaderboard, or cannot be written.
    """
    _check_replaceable(out, {Path(name).parts[0] for name in files})
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as own:
            new, old = Path(own) / "new", Path(own) / "old"
            for name, content in files.items():
                path = new / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content if isinstance(content, bytes) else content.encode())
            try:
                if out.exists():
                    out.rename(old)
                new.rename(out)
            finally:
                if old.exists() and not out.exists():
                    old.rename(out)
    except OSError as error:
        raise MetricZooError(f"the leaderboard cannot be written to {out}: {error.strerror or error}") from None


def _check_replaceable(out: Path, names: set[str]) -> None:
    if not out.exists():
        return
    # The first leaderboards had no JSON.
    marked = any((out / name).exists() for name in (_MARKER, "leaderboard.csv"))
    if not out.is_dir() or (any(out.iterdir()) and not marked):
        raise MetricZooError(f"{out} exists and is no leaderboard: name another folder")
    pages = {f"{name}.html" for name in (*trained_boards(), *MEASURED)}
    foreign = sorted({path.name for path in out.iterdir()} - names - _OWN - pages)
    if foreign:
        raise MetricZooError(f"{out} holds {foreign[0]!r}, which is of no leaderboard: name another folder")
