"""The results of sweeps in one CSV file, a row per architecture and kind: the table that is published is the state."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator
from dataclasses import fields
from pathlib import Path

from metric_zoo.benchmarks.conversion.architectures import Architecture
from metric_zoo.benchmarks.conversion.result import Result
from metric_zoo.errors import MetricZooError
from metric_zoo.files import replacing

_COLUMNS = [*(f.name for f in fields(Result)), "versions", "commit"]


class Store:
    """Results by architecture and kind, appended to a file as they come.

    Args:
        path: of the CSV file; its folder is made if missing.
        versions: text of the packages' versions. Results of others stay in the file until they are replaced, but do not
            count as known.
        commit: at which results are obtained from now on.

    Raises:
        MetricZooError: if the folder cannot be made or the file is no such table.
    """

    def __init__(self, path: Path, versions: str, commit: str) -> None:
        self.path, self.versions, self.commit = path, versions, commit
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            text = path.read_text(encoding="utf-8") if path.exists() else ""
        except (OSError, ValueError) as error:
            raise MetricZooError(f"{path} cannot be used for results: {error}") from None
        self._rows: dict[tuple[str, str], dict[str, dict[str, str]]] = {}
        self._read(text)

    def results(self, architecture: Architecture) -> list[Result]:
        """What is known of an architecture with these versions."""
        rows = self._rows.get((architecture.source, architecture.name), {}).values()
        return [Result.from_row(row) for row in rows if row["versions"] == self.versions]

    def add(self, results: Iterable[Result]) -> None:
        """Remember results, and append them to the file."""
        rows = [{**result.to_row(), "versions": self.versions, "commit": self.commit} for result in results]
        new = not self.path.exists() or not self.path.stat().st_size
        with self.path.open("a", encoding="utf-8", newline="") as file:
            file.write(_text(rows, heading=new))
        for row in rows:
            self._remember(row)

    def forget(self, results: Iterable[Result]) -> None:
        """Drop results, here and in the file."""
        for result in results:
            self._rows[result.source, result.model].pop(result.kind)
        self.tidy()

    def tidy(self) -> None:
        """Write the file anew, sorted, each result once."""
        rows = sorted(self._all(), key=lambda row: (row["source"], row["family"], row["model"], row["kind"]))
        with replacing(self.path) as path:
            path.write_text(_text(rows, heading=True), encoding="utf-8", newline="")

    def commits(self) -> list[str]:
        """Where the results of these versions were obtained."""
        return list(dict.fromkeys(row["commit"] for row in self._all() if row["versions"] == self.versions))

    def _all(self) -> Iterator[dict[str, str]]:
        return (row for rows in self._rows.values() for row in rows.values())

    def _remember(self, row: dict[str, str]) -> None:
        self._rows.setdefault((row["source"], row["model"]), {})[row["kind"]] = row

    def _read(self, text: str) -> None:
        """Remember the file's rows; the last of a kind counts, and one that was cut off is left out."""
        reader = csv.DictReader(io.StringIO(text))
        if text and reader.fieldnames != _COLUMNS:
            raise MetricZooError(f"{self.path} is not a table of a conversion sweep: give another folder")
        for row in reader:
            try:
                Result.from_row(row)
            except (KeyError, ValueError, TypeError):
                continue
            if None not in row.values():
                self._remember(row)


def _text(rows: Iterable[dict[str, str]], heading: bool) -> str:
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, _COLUMNS, lineterminator="\n")
    if heading:
        writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()
