"""Build a leaderboard folder from a folder of records."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from metric_zoo.errors import MetricZooError, RecordError
from metric_zoo.files import replacing
from metric_zoo.leaderboards.collect import collect
from metric_zoo.leaderboards.site import render
from metric_zoo.leaderboards.statistics import leaderboard
from metric_zoo.leaderboards.tables import to_csv, to_markdown


def build(records: Path, out: Path) -> pd.DataFrame:
    """Write ``leaderboard.csv``, ``leaderboard.md`` and ``index.html`` into ``out``.

    Nothing is written unless every record is sound and every file could be made.

    Args:
        records: folder of records, searched below too.
        out: made if missing.

    Returns:
        The board, one row per configuration.

    Raises:
        RecordError: if there are no records, some are damaged, or all runs failed.
    """
    found = collect(records)
    board = leaderboard(found)
    if board.empty:
        failure = found[0].failure
        raise RecordError(f"all {len(found)} runs in {records} failed, the first by {failure.type}: {failure.message}")
    files = {"leaderboard.csv": to_csv(board), "leaderboard.md": to_markdown(board), "index.html": render(board, found)}
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            with replacing(out / name) as path:
                path.write_text(text, encoding="utf-8", newline="")
    except OSError as error:
        raise MetricZooError(f"the leaderboard cannot be written to {out}: {error.strerror or error}") from None
    return board
