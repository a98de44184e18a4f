"""Records: the schema refuses what cannot be, writing is atomic."""

from __future__ import annotations

import json

import pytest

from metric_zoo import RecordError
from metric_zoo.benchmarks.record import config_id
from metric_zoo.benchmarks.record_files import read_record, write_record
from tests.leaderboards.records import make_record


def test_round_trip(tmp_path):
    record = make_record()
    write_record(tmp_path / "r.json", record)
    assert read_record(tmp_path / "r.json") == record
    assert [p.name for p in tmp_path.iterdir()] == ["r.json"]


def test_a_failed_write_leaves_nothing(tmp_path, monkeypatch):
    write_record(tmp_path / "r.json", make_record(seed=1))
    monkeypatch.setattr("os.replace", lambda *a: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space"):
        write_record(tmp_path / "r.json", make_record(seed=2))
    assert read_record(tmp_path / "r.json").seed == 1
    assert [p.name for p in tmp_path.iterdir()] == ["r.json"]


def test_identity_ignores_the_order_of_keys():
    assert config_id({"a": 1, "b": [2]}) == config_id({"b": [2], "a": 1}) != config_id({"a": 1, "b": [3]})


def change(**entries):
    return lambda data: {**data, **entries}


DAMAGE = [
    (lambda d: [], "no 'schema_version'"),
    (change(schema_version=99), "schema version 99"),
    (change(schema_version=True), "no 'schema_version'"),
    (change(status="maybe"), "status"),
    (change(status="failed"), "'failure' is missing"),
    (change(test=None), "lacks test"),
    (lambda d: {**d, "test": {**d["test"], "top1": 1.5}}, "test.top1: .*1.5"),
    (lambda d: {**d, "test": {**d["test"], "top1": float("nan")}}, "NaN is no number"),
    (lambda d: {k: v for k, v in d.items() if k != "seed"}, "seed: Field required"),
    (change(wall_seconds=-1), "wall_seconds"),
]


@pytest.mark.parametrize(("damage", "message"), DAMAGE, ids=[m for _, m in DAMAGE])
def test_damage_is_named(tmp_path, damage, message):
    path = tmp_path / "r.json"
    path.write_text(json.dumps(damage(make_record().model_dump(mode="json"))))
    with pytest.raises(RecordError, match=f"r.json.*{message}"):
        read_record(path)


def test_not_json(tmp_path):
    (tmp_path / "r.json").write_text("{")
    with pytest.raises(RecordError, match="cannot be read as JSON"):
        read_record(tmp_path / "r.json")


def test_unknown_keys_are_tolerated(tmp_path):
    path = tmp_path / "r.json"
    path.write_text(json.dumps({**make_record().model_dump(mode="json"), "mood": "good"}))
    assert read_record(path) == make_record()
