"""``metric-zoo leaderboard`` from the command line: what it says, and its exit codes."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from metric_zoo import RecordError
from metric_zoo.leaderboards.cli import app
from tests.leaderboards.records import make_record, write

ROOT = Path(__file__).parents[2]


def run(*arguments: object):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def records(tmp_path) -> Path:
    return write(tmp_path / "records", make_record(), make_record("standard"))


def test_a_damaged_record_costs_the_board_nothing_unless_strict(records, tmp_path):
    (records / "9.json").write_text("{")
    for strict, code in (((), 0), (("--strict",), 1)):
        result = run("build", records, "--out", tmp_path / "board", *strict)
        assert result.exit_code == code and "2 configurations; open" in result.stdout
        assert "9.json left out: it cannot be read as JSON" in result.stderr
        assert (tmp_path / "board" / "classification.html").exists()


def test_publish_with_all_boards(records, tmp_path):
    files = {"kernels": "kernels.json", "operators": "operators.json", "conversion": "conversion.csv"}
    boards = [part for name, file in files.items() for part in (f"--{name}", ROOT / "docs" / file)]
    assert run("publish", records, "--out", tmp_path / "site", *boards, "--strict").exit_code == 0
    names = {path.name for path in (tmp_path / "site").iterdir()}
    assert {
        ".nojekyll",
        "index.html",
        "classification.html",
        "kernels.html",
        "operators.html",
        "conversion.html",
    } <= names


def test_check(records):
    result = run("check", records)
    assert result.exit_code == 0 and result.stdout == "2 records, 0 problems\n"
    write(records / "more", make_record("shifted", generalization_gap=0.5))
    result = run("check", records)
    assert result.exit_code == 1 and "generalization_gap is 0.500000" in result.stderr


def test_diff(records, tmp_path):
    assert run("diff", records, records).stdout == "no difference\n"
    other = write(tmp_path / "other", make_record())
    assert "gone" in run("diff", records, other).stdout


def test_a_refused_submission_is_an_error(records, tmp_path):
    result = run("submit", records / "0.json", "--out", tmp_path / "results")
    assert isinstance(result.exception, RecordError) and "refused" in str(result.exception)
    assert not (tmp_path / "results").exists()
