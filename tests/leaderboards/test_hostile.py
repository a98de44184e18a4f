"""Records that somebody made to be stumbled over: each is shown or left out, and the others never notice."""

from __future__ import annotations

import copy
import csv
import functools
import io
import json
import math
import os
import time
import typing
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, TypeAdapter, ValidationError

from metric_zoo import RecordError
from metric_zoo.benchmarks.record import Record, config_id
from metric_zoo.benchmarks.record_files import read_record
from metric_zoo.benchmarks.schema import MAX_BYTES, Tree
from metric_zoo.benchmarks.tasks import get_task
from metric_zoo.leaderboards import build as build_module
from metric_zoo.leaderboards.build import build
from metric_zoo.leaderboards.collect import collect
from metric_zoo.leaderboards.difference import difference
from metric_zoo.leaderboards.escaping import no_formula
from metric_zoo.leaderboards.site import measurements, pages
from metric_zoo.leaderboards.site.kernels import kernels
from metric_zoo.leaderboards.statistics import leaderboard
from metric_zoo.leaderboards.submit import submit
from metric_zoo.leaderboards.tables import to_csv, to_json, to_parquet
from metric_zoo.text import plain
from tests.leaderboards.records import make_config, make_denoising, make_record, with_hits, write

ROOT = Path(__file__).parents[2]


def complete() -> dict:
    """A classification with every figure that a record can hold, of data of its own."""
    record = with_hits(make_record("shifted"), np.arange(50) % 2 == 0).model_dump(mode="json")
    speed = {**record["inference"], "joules_per_image": 1.0}
    others = ("inference_single", "inference_largest", "training_single", "training_largest")
    return {
        **record,
        **dict.fromkeys(others, speed),
        "dataset": {**record["dataset"], "fingerprint": "of its own"},
        "test": {**record["test"], "calibration_error": 0.1},
        "latency_ms": {"p50": 3.0, "p90": 4.0, "p99": 5.0},
        "robustness": {"noise": 0.5},
        "searched": {"0.1": 0.5, "1": None},
        "lr": 0.1,
        "micro_batches": 1,
        "sampling": {"layers": 3, "mean": 0.5, "p99": 2.0, "maximum": 4.0, "outside": 0.1, "never_moved": 0.5},
        "converted_layers": 3,
        "peak_memory_mib": 5.0,
        "activation_memory_mib": 3.0,
        "timing": record["provenance"],
    }


def places(tree: object, path: tuple = ()) -> Iterator[tuple]:
    """Of every value; of a list's items the first alone."""
    yield path
    items = tree.items() if isinstance(tree, dict) else list(enumerate(tree))[:1] if isinstance(tree, list) else ()
    for name, part in items:
        yield from places(part, (*path, name))


def at(tree: object, path: tuple) -> object:
    return functools.reduce(lambda part, name: part[name], path, tree)


def with_value(record: dict, path: tuple, value: object) -> object:
    """A copy with another value, and the identity that belongs to it."""
    if not path:
        return value
    changed = copy.deepcopy(record)
    at(changed, path[:-1])[path[-1]] = value
    if isinstance(changed.get("config"), dict):
        changed["id"] = config_id(changed["config"])
    return changed


BASES = {"classification": complete(), "denoising": make_denoising("shifted").model_dump(mode="json")}
NUMBERS = [
    (name, path)
    for name, base in BASES.items()
    for path in places(base)
    if isinstance(at(base, path), (int, float)) and not isinstance(at(base, path), bool) and path[0] != "config"
    if path[0] not in ("schema_version", "options") and "hardware" not in path
]


def test_the_bases_are_sound():
    for base in BASES.values():
        assert Record.model_validate(base).model_dump(mode="json") == base


@pytest.mark.parametrize(
    ("name", "path"), NUMBERS, ids=[f"{name}-{'.'.join(map(str, path))}" for name, path in NUMBERS]
)
def test_every_number_is_bounded(name, path):
    for value in (1e308, -1e308, math.inf, math.nan, 10**400, -(10**400), 1e100):
        with pytest.raises(ValidationError):
            Record.model_validate(with_value(BASES[name], path, value))


def models_of(annotation: object) -> set[type]:
    inner = {model for part in typing.get_args(annotation) for model in models_of(part)}
    return inner | ({annotation} if isinstance(annotation, type) and issubclass(annotation, BaseModel) else set())


def test_the_bases_hold_every_number_of_the_schema():
    """Names of fields alone: a new figure must come to the tests above."""
    todo, numbers = [Record], set()
    for name in BASES:
        todo += [get_task(name).scores, get_task(name).epoch]
    while todo:
        for field_name, field in todo.pop().model_fields.items():
            todo += models_of(field.annotation)
            if {int, float} & {field.annotation, *typing.get_args(field.annotation)}:
                numbers.add(field_name)
    known = {part for _, path in NUMBERS for part in path}
    assert numbers - known <= {"schema_version", "unreadable"}


@pytest.mark.parametrize(
    ("changes", "figure"),
    [({"gflops": 5e-324}, "gflops"), ({"latency_ms": {"p50": 1e-300, "p90": 1.0}}, "latency_ms.p50")],
    ids=["gflops", "latency"],
)
def test_what_is_divided_by_is_no_dust(changes, figure):
    """Accuracy over it would be infinite."""
    with pytest.raises(ValidationError, match=rf"{figure}[\s\S]*below 1e-12"):
        Record.model_validate({**complete(), **changes})


def timed(started: str, finished: str, field: str = "provenance") -> dict:
    record = complete()
    return {**record, field: {**record[field], "started": started, "finished": finished}}


NOW = "2026-01-01T00:00:00+00:00"
TIMES = [
    (NOW, "9999-12-31T23:59:59-14:00", "is beyond the calendar"),
    ("0001-01-01T00:00:00+14:00", NOW, "is beyond the calendar"),
    (NOW, "9999-12-31T23:59:59+00:00", "a clock was wrong"),
    ("1970-01-01T00:00:00+00:00", NOW, "a clock was wrong"),
    (NOW, "2025-12-31T23:59:59+00:00", "ended before it began"),
    ("2026-01-01T00:00:00", "2026-01-01T00:30:00+01:00", "ended before it began"),
    (NOW, "tomorrow", "is no ISO 8601 time"),
    (NOW, "2026-13-01T00:00:00+00:00", "is no ISO 8601 time"),
    (NOW, "2026-01-01T00:00:00+99:00", "is no ISO 8601 time"),
    (NOW, "2026-01-01T00:00:00+00:00" + "0" * 100, "at most 40 characters"),
]


@pytest.mark.parametrize("field", ["provenance", "timing"])
@pytest.mark.parametrize(("started", "finished", "reason"), TIMES, ids=[f"{s[:16]}-{f[:30]}" for s, f, _ in TIMES])
def test_times_that_cannot_be(tmp_path, field, started, finished, reason):
    folder = write(tmp_path, make_record())
    (folder / "bad.json").write_text(json.dumps(timed(started, finished, field)))
    found = collect(folder)
    assert len(found.records) == 1 and reason in found.problems[0].reason


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("2026-03-29T01:30:00+02:00", "2026-03-28T23:30:00+00:00"),
        ("2026-03-29T01:30:00", "2026-03-29T01:30:00+00:00"),
        ("2026-03-29T01:30:00Z", "2026-03-29T01:30:00+00:00"),
        ("2026-03-29", "2026-03-29T00:00:00+00:00"),
    ],
)
def test_times_are_kept_in_utc(given, kept):
    assert Record.model_validate(timed(given, given)).provenance.started == kept


def test_a_site_is_the_same_in_every_zone(tmp_path, monkeypatch):
    """One time is without a zone, one has another than UTC; both lie where clocks were changed."""
    folder = write(tmp_path / "records", make_record())
    times = ("2026-03-29T01:30:00", "2026-03-29T04:30:00+02:00")
    for number, text in enumerate(times):
        record = {**timed(text, text), "seed": number}
        record = with_value(record, ("config", "seed"), number)
        (folder / f"zone{number}.json").write_text(json.dumps(record))
    sites = []
    for zone in ("Pacific/Kiritimati", "America/New_York"):
        monkeypatch.setenv("TZ", zone)
        time.tzset()
        build(folder, tmp_path / zone)
        sites.append({p.relative_to(tmp_path / zone): p.read_bytes() for p in (tmp_path / zone).rglob("*.html")})
    monkeypatch.delenv("TZ")
    time.tzset()
    assert sites[0] == sites[1]
    assert b"the newest of 2026-03-29 02:30 UTC" in sites[0][Path("index.html")]


HOSTILE = [
    None, True, 0, -0.0, -1, 0.5, 1e308, -1e308, 5e-324, 1e39, 1e12, 1e-12, 10**15, 2**63, -(2**63), 2**64 - 1, 10**400,
    "", "x" * 200, "\u202e=1", "＝1", "-1", "CON", "../x", "9999-12-31T23:59:59-14:00", "2026-01-01T00:00:00", "\ud800",
    "\x00", [], {}, [[]] * 3, {"a": 1}, [1e999], "%s{}$\\",
]  # fmt: skip
CHANGES = [(name, path) for name, base in BASES.items() for path in places(base)]


@pytest.mark.parametrize("number", [10**400, -(2**63) - 1, 2**64])
def test_whole_numbers_without_a_schema_are_bounded(number):
    """Where they are shown, they are floats."""
    changed = with_value(BASES["denoising"], ("config", "data", "noise"), number)
    with pytest.raises(ValidationError, match="a whole number of more than 64 bits"):
        Record.model_validate(changed)
    for allowed in (2**64 - 1, -(2**63)):
        assert TypeAdapter(Tree).validate_python({"deep": [{"number": allowed}]})


def hostile(count: int) -> st.SearchStrategy:
    return st.lists(st.tuples(st.sampled_from(CHANGES), st.sampled_from(HOSTILE)), min_size=count, max_size=count)


def check_beside_good_ones(folder: Path, changes: list) -> None:
    good = [make_record(kind, seed) for kind in ("standard", "metric") for seed in (0, 1)]
    write(folder / "records", *good)
    for number, ((name, path), value) in enumerate(changes):
        base = with_value({**BASES[name], "seed": number}, ("config", "seed"), number)
        (folder / "records" / f"x{number}.json").write_text(json.dumps(with_value(base, path, value)))
    built = build(folder / "records", folder / "board")
    stumbled = [p.reason for p in built.collection.problems if p.reason.startswith("cannot be shown: ")]
    assert not [reason for reason in stumbled if "unhashable" not in reason], "found when it is read"
    rows = {row["cell"]: row for row in csv.DictReader((folder / "board" / "leaderboard.csv").open(encoding="utf-8"))}
    for row in csv.DictReader(io.StringIO(to_csv(leaderboard(good)))):
        assert rows[row["cell"]] == row
    listed = {problem.file for problem in built.collection.problems} | set(built.collection.files)
    assert listed == {path.name for path in (folder / "records").iterdir()}


_FUZZ = {"deadline": None, "suppress_health_check": list(HealthCheck)}


@settings(max_examples=2, derandomize=True, **_FUZZ)
@given(hostile(100))
def test_no_record_stops_the_others(tmp_path_factory, changes):
    """One value of a good record is hostile: it is left out, or shown beside the others, whose rows do not change."""
    check_beside_good_ones(tmp_path_factory.mktemp("fuzz"), changes)


@pytest.mark.slow
@settings(max_examples=50, **_FUZZ)
@given(hostile(100))
def test_no_record_stops_the_others_at_length(tmp_path_factory, changes):
    check_beside_good_ones(tmp_path_factory.mktemp("fuzz"), changes)


@pytest.mark.parametrize("where", ["tables", "a run's page"])
def test_what_only_stumbles_when_it_is_shown_is_left_out(tmp_path, monkeypatch, where):
    """Of four records the third: the others are shown as without it, and it is listed."""
    records = [make_record("metric", seed, test=0.8 + seed / 50) for seed in range(4)]
    write(tmp_path / "without", *records[:2], *records[3:])
    build(tmp_path / "without", tmp_path / "expected")

    def stumble(genuine, concerns):
        def changed(*arguments):
            if concerns(*arguments):
                raise OverflowError("cannot convert float infinity to integer")
            return genuine(*arguments)

        return changed

    module, name, concerns = {
        "tables": (build_module, "to_json", lambda board: any(2 in seeds for seeds in board["seeds"])),
        "a run's page": (pages, "recipe_of", lambda record: record.seed == 2),
    }[where]
    monkeypatch.setattr(module, name, stumble(getattr(module, name), concerns))
    built = build(write(tmp_path / "records", *records), tmp_path / "board")
    assert [(p.file, p.reason) for p in built.collection.problems] == [
        ("2.json", "cannot be shown: OverflowError: cannot convert float infinity to integer")
    ]
    assert "2.json: cannot be shown" in (tmp_path / "board" / "index.html").read_text()
    for file in ("leaderboard.csv", "leaderboard.json", "classification.html"):
        assert (tmp_path / "board" / file).read_bytes() == (tmp_path / "expected" / file).read_bytes()


def test_a_fault_that_is_no_records_is_not_blamed_on_one(tmp_path, monkeypatch):
    def broken(*_):
        raise RuntimeError("no template")

    monkeypatch.setattr(pages._Site, "overview", broken)
    with pytest.raises(RuntimeError, match="no template"):
        build(write(tmp_path / "records", make_record()), tmp_path / "board")


def test_extremes_that_can_be_are_shown(tmp_path):
    """What diverged and what was restored, seeds of 64 bits, one operation and 10^12 GFLOPs, side by side."""

    def scores(mse: float) -> dict:
        return {"mse": mse, "psnr": -10 * math.log10(max(mse, 1e-15)), "ssim": 0.0, "published_mse": mse, "images": 1}

    records = [
        make_record(kind, test=0.9).model_copy(update={"seed": seed})
        for kind in ("standard", "metric")
        for seed in (2**64 - 1, 2**63 + 1, -(2**63))
    ]
    for number, (train, test) in enumerate([(1e-45, 1e38), (1e38, 1e-45), (1e-16, 1e-16)]):
        speed = {"median": (1e-12, 1e12)[number % 2], "lower_quartile": 1e-12, "upper_quartile": 1e12}
        data = make_denoising("metric", 0, 0.1, 0.1, size=(5, 11, 31)[number]).model_dump()
        data |= {"train": scores(train), "test": scores(test), "generalization_gap": (test - train) / train}
        data |= {"gflops": (1e-9, 1e12)[number % 2], "inference": {**data["inference"], **speed}}
        data["parameters"]["total"] = data["parameters"]["trainable"] = (100, 10**15)[number % 2]
        data["epochs"] = [{**e, "train_loss": 1e39, "test_mse": 1e39, "lr": 1e39} for e in data["epochs"]]
        records.append(Record.model_validate(data))
    for number, record in enumerate(records[:6]):
        config = {**record.config, "seed": record.seed}
        records[number] = record.model_copy(update={"config": config, "id": config_id(config)})
    built = build(write(tmp_path / "records", *records), tmp_path / "board")
    assert built.collection.problems == [] and len(built.board) == 5
    assert list(built.board["pairs"].dropna()) == [3]
    parquet = pd.read_parquet(tmp_path / "board" / "leaderboard.parquet")
    assert parquet["seeds"][0] == f"{-(2**63)} {2**63 + 1} {2**64 - 1}"
    json.loads((tmp_path / "board" / "leaderboard.json").read_text(), parse_constant=pytest.fail)
    lines = (tmp_path / "board" / "leaderboard.md").read_text().splitlines()
    assert all(len(cell) < 40 for line in lines if line.startswith("|") for cell in line.split("|"))


def fifo(path: Path) -> None:
    os.mkfifo(path)


def loop(path: Path) -> None:
    path.symlink_to(path)


def dangling(path: Path) -> None:
    path.symlink_to("nowhere")


def latin(path: Path) -> None:
    path.write_bytes(make_record(model="é").model_dump_json().encode("latin-1"))


def wide(path: Path) -> None:
    path.write_bytes(make_record().model_dump_json().encode("utf-16"))


def gigabyte(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(2**30)


def twice(path: Path) -> None:
    path.write_text(make_record().model_dump_json().replace('"seed":0', '"seed":0,"seed":1', 1))


def endless_integer(path: Path) -> None:
    path.write_text(make_record().model_dump_json().replace('"total":1000', f'"total":{"9" * 5000}'))


def half_a_character(path: Path) -> None:
    path.write_text(json.dumps(with_value(complete(), ("options",), {"a": "\ud800"})))


def infinite_option(path: Path) -> None:
    config = make_config() | {"kind": {"kind": "metric", "options": {"a": math.inf}}}
    record = {
        **make_record().model_dump(mode="json"),
        "config": config,
        "options": {"a": math.inf},
        "id": config_id(config),
    }
    path.write_text(json.dumps(record).replace("Infinity", "1e999"))


def unhashable(path: Path) -> None:
    path.write_text(json.dumps(with_value(complete(), ("config", "train", "precision"), ["no"])))


FILES = [
    (fifo, "named pipe, not a file"), (loop, "symbolic links"), (dangling, "No such file"),
    (latin, "not text in UTF-8"), (wide, "not text in UTF-8"), (gigabyte, f"bytes are more than {MAX_BYTES:,}"),
    (twice, "'seed' is there more than once"),
    (endless_integer, "an integer of 5000 digits"), (half_a_character, "half of a surrogate pair"),
    (infinite_option, "holds what JSON cannot"), (unhashable, "unhashable"),
]  # fmt: skip


@pytest.mark.parametrize(("make", "reason"), FILES, ids=[make.__name__ for make, _ in FILES])
def test_files_that_are_no_records(tmp_path, make, reason):
    """Neither a board, nor a difference, nor a submission waits for them or ends in a traceback."""
    folder = write(tmp_path / "records", make_record())
    (folder / "folder.json").mkdir()
    make(folder / "bad.json")
    found = collect(folder)
    assert len(found.records) == 1 and [problem.file for problem in found.problems] == ["bad.json"]
    assert reason in found.problems[0].reason
    assert difference(folder, folder) == "no difference"
    with pytest.raises(RecordError, match=reason):
        submit([folder / "bad.json"], tmp_path / "results", rebuild=False)


def test_a_folder_is_no_record(tmp_path):
    with pytest.raises(RecordError, match="it is a folder, not a file"):
        read_record(tmp_path)


SIGNS = ["=", "+", "-", "@", "＝", "＋", "－", "＠", "﹦", "﹢", "﹣", "﹫", "⁼", "⁺", "⁻", "₌", "\u2212"]
LEADS = ["", " ", "\u200b", "\u2060", "\ufeff", "\u00a0", "\u3000", "\u3164", "\u034f", "\x00", "\u202e"]


@pytest.mark.parametrize("sign", SIGNS)
def test_no_sign_begins_a_formula(sign):
    """However wide it is, and whatever cannot be seen stands before it."""
    for lead in LEADS:
        assert no_formula(f"{lead}{sign}A1+2") == f"'{lead}{sign}A1+2"
    assert no_formula(f"a{sign}b") == f"a{sign}b"


@pytest.mark.parametrize("text", ["\tx", "\rx", "\nx"])
def test_what_moves_to_another_cell_is_guarded(text):
    assert no_formula(text) == f"'{text}"


def test_numbers_stay_numbers_as_pandas_reads_them(tmp_path):
    """Negative gaps and seeds, beside models whose names are formulas."""
    names = ["＝1+1", "=1+1", "resnet"]
    config = [make_config(seed=-5, model=name) for name in names]
    records = [
        make_record(seed=0, test=0.96, config=c, model=n).model_copy(update={"seed": -5})
        for c, n in zip(config, names, strict=True)
    ]
    board = leaderboard(records)
    frame = pd.read_csv(io.StringIO(to_csv(board)))
    assert sorted(frame["model"]) == ["'=1+1", "'＝1+1", "resnet"]
    assert list(frame["seeds"]) == [-5, -5, -5]
    np.testing.assert_allclose(frame["generalization_gap"], [-1.0] * 3)
    numeric = board.select_dtypes("number").columns
    assert all(pd.api.types.is_numeric_dtype(frame[name]) for name in numeric if frame[name].notna().any())
    assert json.loads(to_json(board))[0]["seeds"] == [-5] and len(to_parquet(board)) > 0


def test_a_markdown_cell_links_nowhere():
    """GitHub makes links of what begins so, unless a backslash stands between."""
    assert plain("see www.example.org and https://example.org") == r"see www\.example.org and https\://example.org"


def edited(name: str, path: tuple, value: object) -> str:
    report = json.loads((ROOT / "docs" / name).read_text())
    at(report, path[:-1])[path[-1]] = value
    return json.dumps(report)


def cell(column: str, value: str) -> str:
    frame = pd.read_csv(ROOT / "docs" / "conversion.csv", keep_default_na=False, dtype=str, nrows=8)
    frame.loc[3, column] = value
    return frame.to_csv(index=False)


MEDIAN = ("results", 0, "milliseconds", "median")
DAMAGED = [
    (measurements.operators, lambda: edited("operators.json", MEDIAN, 1e308)),
    (measurements.operators, lambda: edited("operators.json", MEDIAN, math.nan)),
    (measurements.operators, lambda: edited("operators.json", MEDIAN, "1")),
    (measurements.operators, lambda: edited("operators.json", ("results", 0), {})),
    (measurements.operators, lambda: edited("operators.json", ("results", 0, "threads"), "x")),
    (measurements.operators, lambda: "[" * 100_000),
    (kernels, lambda: edited("kernels.json", ("results", 0, "psnr"), 1e308)),
    (kernels, lambda: edited("kernels.json", ("results", 0, "reads"), 10**400)),
    (kernels, lambda: edited("kernels.json", ("results", 0, "target"), 3)),
    (kernels, lambda: edited("kernels.json", ("latency", 0, "milliseconds"), [1.0, math.inf, 2.0])),
    (kernels, lambda: edited("kernels.json", ("varying",), None)),
    (kernels, lambda: '{"results": 1, "results": 2}'),
    (measurements.conversion, lambda: cell("swapped", "1e999")),
    (measurements.conversion, lambda: cell("parameters", "9" * 5000)),
    (measurements.conversion, lambda: cell("difference", "inf")),
    (measurements.conversion, lambda: cell("difference", "nan")),
    (measurements.conversion, lambda: "source,model\n" + "x," * 9),
    (measurements.conversion, lambda: "\x00"),
]


@pytest.mark.parametrize(("board", "text"), DAMAGED, ids=[f"{b.__name__}{n}" for n, (b, _) in enumerate(DAMAGED)])
def test_other_boards_refuse_what_no_page_can_show(tmp_path, board, text):
    (tmp_path / "x").write_text(text())
    with pytest.raises(RecordError, match="is not what 'metric-zoo") as refusal:
        board(tmp_path / "x")
    assert "\n" not in str(refusal.value) and len(str(refusal.value)) < 400


@pytest.mark.parametrize("board", [measurements.operators, measurements.conversion, kernels])
def test_other_boards_wait_for_no_pipe(tmp_path, board):
    os.mkfifo(tmp_path / "x")
    with pytest.raises(RecordError, match="named pipe, not a file"):
        board(tmp_path / "x")
