"""Records as lines of one file per recipe: the same bytes from the same records, and nothing lost on the way."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from metric_zoo import MetricZooError, RecordError
from metric_zoo.benchmarks import collect as collect_module
from metric_zoo.benchmarks.cli import app
from metric_zoo.benchmarks.collect import add_records, collect_records, entry_of, file_of, remove_record, replace_record
from metric_zoo.benchmarks.curves import draw_curves
from metric_zoo.benchmarks.record import Record, record_path
from metric_zoo.benchmarks.record_files import entries, read_record, readable, status_of, write_record
from metric_zoo.benchmarks.schema import MAX_BYTES
from metric_zoo.benchmarks.show import show_record
from metric_zoo.leaderboards.collect import collect
from metric_zoo.leaderboards.submit import submit
from tests.leaderboards.records import make_config, make_record, with_hits

KINDS = ("metric", "standard", "shifted")


def path_of(folder: Path, record: Record) -> Path:
    return record_path(folder, record.model, record.kind, record.seed, record.id)


@pytest.fixture
def records() -> list[Record]:
    return [make_record(kind, seed) for kind in KINDS for seed in (0, 1)]


@pytest.fixture
def folder(tmp_path, records) -> Path:
    """As runs leave it: a file each."""
    for record in records:
        write_record(path_of(tmp_path / "out", record), record)
    return tmp_path / "out"


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if not path.name.startswith(".")}


def test_a_file_per_recipe_sorted_by_id(folder, records):
    before = {path.name: json.loads(path.read_text()) for path in folder.glob("*.json")}
    other = make_record(config=make_config(recipe="an/other: ?"), recipe="an/other: ?")
    write_record(path_of(folder, other), other)
    done = collect_records(folder)
    assert done.records == 7 and done.problems == [] and files(folder) == {"tiny.jsonl", "an_other.jsonl"}
    lines = [json.loads(line) for line in (folder / "tiny.jsonl").read_text().splitlines()]
    assert [line["id"] for line in lines] == sorted(record.id for record in records)
    assert sorted(lines, key=str) == sorted(before.values(), key=str), "every value as it was"
    assert sorted((r.record for r in entries(folder / "tiny.jsonl")), key=str) == sorted(records, key=str)


@pytest.mark.parametrize("recipe", ["../../x", ".hidden", "", "..", "x" * 200, "a\nb", "C:\\x"], ids=repr)
def test_a_recipe_cannot_name_another_folder(tmp_path, recipe):
    path = file_of(tmp_path, recipe)
    assert path.parent == tmp_path and not path.name.startswith(".") and len(path.name) < 130 and path.stem


def shuffled(data: object) -> object:
    """The same JSON of somebody else, whose schema's keys come in another order."""
    keep = ("config", "options", "versions", "hardware", "robustness", "searched")
    if not isinstance(data, dict):
        return [shuffled(part) for part in data] if isinstance(data, list) else data
    return {name: part if name in keep else shuffled(part) for name, part in reversed(data.items())}


def test_bytes_do_not_depend_on_who_wrote_records_or_in_which_order(folder, records, tmp_path):
    collect_records(folder)
    other = tmp_path / "other"
    other.mkdir()
    for number, record in enumerate(reversed(records)):
        (other / f"{number}.json").write_text(json.dumps(shuffled(record.model_dump(mode="json")), indent=number))
        if number % 2:
            collect_records(other)
    assert (other / "tiny.jsonl").read_bytes() == (folder / "tiny.jsonl").read_bytes()
    added = tmp_path / "added"
    add_records(added, [entry_of(added, record) for record in records])
    assert (added / "tiny.jsonl").read_bytes() == (folder / "tiny.jsonl").read_bytes()


def test_what_a_newer_program_wrote_beside_is_kept(folder, records):
    path = path_of(folder, records[0])
    data = json.loads(path.read_text())
    data["mood"], data["test"]["colour"] = {"b": 1, "a": 2}, "blue"
    path.write_text(json.dumps(data))
    collect_records(folder)
    assert data in [json.loads(line) for line in (folder / "tiny.jsonl").read_text().splitlines()]


def test_readers_know_both_forms_and_mixtures(folder, records, tmp_path):
    """The board, the check of what is done, one record by its path, curves, a listing: as with a file each."""
    paths = [path_of(folder, record) for record in records]
    expected, alone = collect(folder), show_record(paths[0])
    collect_records(folder)
    late = make_record("deformable")
    write_record(path_of(folder, late), late)
    write_record(paths[0], records[0])  # left over beside its line
    assert [status_of(path) for path in paths] == ["ok"] * 6 and status_of(folder / "x-seed0-0123456789ab.json") is None
    assert [read_record(path) for path in paths] == records
    found = collect(folder)
    assert found.problems == [] and found.records == sorted([*expected.records, late], key=lambda r: path_of(folder, r))
    assert show_record(paths[0]) == alone and alone in show_record(folder / "tiny.jsonl")
    assert {entry.path for entry in readable([folder / "tiny.jsonl"])} == set(paths)
    draw_curves([folder / "tiny.jsonl"], tmp_path / "curves.svg")
    assert (tmp_path / "curves.svg").exists()
    assert collect_records(folder).records == 7 and files(folder) == {"tiny.jsonl"}


def test_the_newer_of_two_that_differ_is_nobodys_guess(folder, records):
    collect_records(folder)
    before = (folder / "tiny.jsonl").read_bytes()
    path = path_of(folder, records[0])
    write_record(path, records[0].model_copy(update={"wall_seconds": 5.0}))
    with pytest.raises(RecordError, match=r"json and .*tiny.jsonl, line \d are of the same run and differ: remove one"):
        collect_records(folder)
    assert path.exists() and (folder / "tiny.jsonl").read_bytes() == before
    (problem,) = collect(folder).problems
    assert "is of the same run as" in problem.reason


DAMAGE = [
    (b"{", "cannot be read as JSON"),
    (b'{"schema_version": 1}', "breaks the schema"),
    (b"[]", "has no 'schema_version'"),
    (b'{"schema_version": 1, "seed": NaN}', "NaN is no number"),
    (b"\xff\xfe", "is not text in UTF-8"),
    (b" " * (MAX_BYTES + 1) + b"{}", "its bytes are more than"),
]


@pytest.mark.parametrize(("line", "reason"), DAMAGE, ids=[reason for _, reason in DAMAGE])
def test_a_damaged_line_is_named_and_kept_and_costs_no_other(folder, records, line, reason, capfd):
    collect_records(folder)
    file = folder / "tiny.jsonl"
    whole = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join([*whole[:2], line + b"\n", *whole[3:]]))
    damaged = file.read_bytes()
    lost = next(record for record in records if record.id == json.loads(whole[2])["id"])

    (problem,) = collect(folder).problems
    assert problem.file == "tiny.jsonl, line 3" and reason in problem.reason
    statuses = {record.id: status_of(path_of(folder, record)) for record in records}
    assert statuses.pop(lost.id) is None and set(statuses.values()) == {"ok"}
    assert f"tiny.jsonl, line 3 {reason if reason[0] in 'cb' else ''}" in capfd.readouterr().err

    write_record(path_of(folder, lost), lost)  # the run is done again
    done = collect_records(folder)
    assert done.records == 6 and len(done.problems) == 1 and file.read_bytes() == b"".join(whole)
    assert (folder / "tiny.jsonl.damaged").read_bytes() == damaged


def test_a_line_for_a_newer_program_is_left_to_it(folder, records):
    collect_records(folder)
    file = folder / "tiny.jsonl"
    first, *rest = file.read_text().splitlines(keepends=True)
    newer = {**json.loads(first), "schema_version": 99}
    file.write_text("".join([json.dumps(newer) + "\n", *rest]))
    before = file.read_bytes()
    (record,) = [record for record in records if record.id == newer["id"]]
    assert status_of(path_of(folder, record)) == "unreadable"
    with pytest.raises(RecordError, match="line 1 has schema version 99"):
        collect_records(folder)
    assert file.read_bytes() == before


def test_a_damaged_file_stays_where_it_is(folder):
    (folder / "9.json").write_text("{")
    result = CliRunner().invoke(app, ["collect", str(folder)])
    assert result.exit_code == 1 and "6 records in tiny.jsonl" in result.stdout and "9.json cannot be" in result.stderr
    assert files(folder) == {"tiny.jsonl", "9.json"}


def test_a_line_is_changed_and_removed_alone(folder, records):
    collect_records(folder)
    path = path_of(folder, records[1])
    replace_record(path, records[1].model_copy(update={"wall_seconds": 7.0}))
    assert read_record(path).wall_seconds == 7.0 and not path.exists() and len(entries(folder / "tiny.jsonl")) == 6
    remove_record(path)
    assert status_of(path) is None and [read_record(path_of(folder, r)) for r in records if r != records[1]]
    assert len(entries(folder / "tiny.jsonl")) == 5


def test_a_full_disk_leaves_everything(folder, records, monkeypatch):
    other = make_record(config=make_config(recipe="other"), recipe="other")
    write_record(path_of(folder, other), other)
    before, done = {path: path.read_bytes() for path in folder.glob("*.json")}, []

    def full(source, target, replace=os.replace):
        if done:
            raise OSError(28, "No space left on device")
        done.append(target)
        replace(source, target)

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(MetricZooError, match="No space left on device"):
        collect_records(folder)
    assert done and {path: path.read_bytes() for path in folder.glob("*.json*")} == before


@pytest.mark.parametrize("stops", [KeyboardInterrupt, MemoryError])
def test_what_ends_a_collection_loses_no_record(folder, records, monkeypatch, stops):
    """A file of another name gives its lines away: the one that takes them is written before, whatever their order."""
    collect_records(folder)
    os.rename(folder / "tiny.jsonl", folder / "renamed.jsonl")
    whole = (folder / "renamed.jsonl").read_bytes()
    put, calls, held = collect_module._put, [], []

    def once(path, content):
        put(path, content)
        if not calls:
            calls.append(path)
            # As a killed process would leave it.
            held.extend(entry.content for file in folder.glob("*.jsonl") for entry in entries(file))
            raise stops

    monkeypatch.setattr(collect_module, "_put", once)
    with pytest.raises(stops):
        collect_records(folder)
    assert calls == [folder / "tiny.jsonl"] and {r.id for r in held} == {r.id for r in records}
    assert files(folder) == {"renamed.jsonl"} and (folder / "renamed.jsonl").read_bytes() == whole


@pytest.mark.parametrize("content", ["", '{"image": 1, "label": "cat"}\n{"image": 2, "label": "dog"}\n'])
def test_files_of_others_stay(folder, content):
    (folder / "annotations.jsonl").write_text(content)
    collect_records(folder)
    assert files(folder) == {"annotations.jsonl", "tiny.jsonl"}
    assert (folder / "annotations.jsonl").read_text() == content


def test_a_folder_without_records(tmp_path):
    for folder, words in ((tmp_path, "holds no records"), (tmp_path / "missing", "is no folder")):
        with pytest.raises(MetricZooError, match=words):
            collect_records(folder)


def test_submissions_of_lines_become_lines(tmp_path):
    hits = np.arange(50) < 45
    folder, records = tmp_path / "out", [with_hits(make_record(kind), hits) for kind in KINDS]
    add_records(folder, [entry_of(folder, record) for record in records])
    new = submit([folder / "tiny.jsonl"], tmp_path / "results", allow_changed=True, rebuild=False)
    assert len(new) == 3 and [read_record(path) for path in new] == [e.record for e in entries(folder / "tiny.jsonl")]
    assert (tmp_path / "results/tiny.jsonl").read_bytes() == (folder / "tiny.jsonl").read_bytes()
    assert submit([folder / "tiny.jsonl"], tmp_path / "results", allow_changed=True, rebuild=False) == []


def test_a_submission_brings_no_keys_of_its_own(tmp_path):
    data = with_hits(make_record(), np.arange(50) < 45).model_dump(mode="json")
    del data["timing"]  # of a program that did not know it
    (tmp_path / "r.json").write_text(json.dumps({**data, "junk": "x", "test": {**data["test"], "junk": [1]}}))
    submit([tmp_path / "r.json"], tmp_path / "results", allow_changed=True, rebuild=False)
    assert json.loads((tmp_path / "results/tiny.jsonl").read_text()) == data
