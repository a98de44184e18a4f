"""Tables and page: statistics against the standard library, hostile text, and all-or-nothing writing."""

from __future__ import annotations

import csv
import html
import html.parser
import json
import statistics

import pytest

from metric_zoo import RecordError
from metric_zoo.benchmarks.record import write_record
from metric_zoo.leaderboards.build import build
from metric_zoo.leaderboards.statistics import leaderboard
from tests.leaderboards.records import make_record


def write(folder, *records):
    for index, record in enumerate(records):
        write_record(folder / f"{index}.json", record)
    return folder


def test_mean_and_sample_standard_deviation():
    scores = [0.90, 0.94, 0.91]
    board = leaderboard([make_record(seed=s, test=t) for s, t in enumerate(scores)] + [make_record("shifted")])
    assert list(board.kind) == ["metric", "shifted"] and list(board.runs) == [3, 1]
    assert board.test_top1[0] == pytest.approx(100 * statistics.mean(scores))
    assert board.test_top1_std[0] == pytest.approx(100 * statistics.stdev(scores))
    gaps = [0.95 - t for t in scores]
    assert board.generalization_gap[0] == pytest.approx(100 * statistics.mean(gaps))
    assert board.generalization_gap_std[0] == pytest.approx(100 * statistics.stdev(gaps))
    assert board.inference[0] == pytest.approx(101)
    assert board.test_top1_std.isna()[1]


def test_machines_and_data_are_not_mixed():
    data = make_record().dataset.model_copy(update={"fingerprint": "g"})
    records = [make_record(), make_record(seed=1, device="H200"), make_record(seed=2, dataset=data)]
    board = leaderboard(records)
    assert list(board.runs) == [1, 1, 1]
    assert sorted(board.hardware) == ["1 x H200", "1 x test, 2 threads", "1 x test, 2 threads"]


def test_a_run_measured_twice_is_no_second_seed():
    config = {**make_record().config, "measure": {"repeats": 99}}
    board = leaderboard([make_record(), make_record(config=config, id="x"), make_record(seed=1)])
    assert sorted(board.runs) == [1, 2]


def test_rows_that_differ_read_differently():
    def variant(**train):
        config = make_record().config
        return make_record(config={**config, "train": {**config["train"], **train}})

    other_model = {**make_record().config, "model": {"name": "resnet18", "options": {"channels": [8, 8]}}}
    records = [variant(), variant(lr=0.1), variant(precision="bf16"), make_record(config=other_model)]
    records.append(make_record(source="torchvision", config={**make_record().config, "source": "torchvision"}))
    board = leaderboard(records)
    assert len(board) == 5
    assert len(set(zip(board.model, board.architecture, board.options, board.protocol, strict=True))) == 5


@pytest.mark.parametrize("config", [{"train": None}, {"kind": "x"}, {"model": 3, "data": [], "train": 1}, {}], ids=str)
def test_odd_configurations_do_not_break_the_board(config):
    assert len(leaderboard([make_record(config=config)])) == 1


class Table(html.parser.HTMLParser):
    """Cells of the page's table, and every attribute that could fetch something."""

    def __init__(self) -> None:
        super().__init__()
        self.rows, self.links, self.inside = [], [], None

    def handle_starttag(self, tag, attrs):
        self.links += [value for name, value in attrs if name in ("src", "href", "action")]
        if tag == "tr":
            self.rows.append([])
        self.inside = tag if tag in ("td", "th") else None
        if self.inside:
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        self.inside = None

    def handle_data(self, data):
        if self.inside:
            self.rows[-1][-1] += data


def test_three_files_agree(tmp_path):
    records = [make_record(seed=s, test=0.9 + s / 100) for s in range(2)] + [make_record("shifted", test=0.8)]
    board = build(write(tmp_path / "records", *records), tmp_path / "out")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["index.html", "leaderboard.csv", "leaderboard.md"]
    rows = list(csv.DictReader((tmp_path / "out/leaderboard.csv").open()))
    assert [float(row["test_top1"]) for row in rows] == pytest.approx([90.5, 80])
    assert list(board.test_top1) == pytest.approx([90.5, 80])
    markdown = (tmp_path / "out/leaderboard.md").read_text().splitlines()
    assert len(markdown) == 4 and "90.50 ± 0.71" in markdown[2] and "| 80.00 |" in markdown[3]
    page = Table()
    page.feed((tmp_path / "out/index.html").read_text())
    assert page.rows[1][page.rows[0].index("Test top-1, %")] == "90.50 ± 0.71"
    assert page.links == [], "the page must fetch nothing"
    assert "Options" not in page.rows[0], "a column without a value says nothing"


def test_page_forbids_foreign_sources(tmp_path):
    build(write(tmp_path / "records", make_record()), tmp_path / "out")
    page = (tmp_path / "out/index.html").read_text()
    policy = html.unescape(page.split('http-equiv="Content-Security-Policy" content="')[1].split('"')[0])
    assert policy.startswith("default-src 'none'") and "http" not in policy and "script-src 'sha256-" in policy


def test_hostile_text_is_inert(tmp_path):
    evil = "=<script>alert(1)</script>|`*"
    failed = make_record("shifted", status="failed", failure={"type": "E", "message": evil})
    build(write(tmp_path / "records", make_record(model=evil), failed), tmp_path / "out")
    page = (tmp_path / "out/index.html").read_text()
    assert "<script>alert(1)" not in page and "&lt;script&gt;alert(1)" in page and "Failed runs" in page
    row = next(csv.DictReader((tmp_path / "out/leaderboard.csv").open()))
    assert row["model"] == f"'{evil}"
    assert "\\<script\\>alert(1)\\</script\\>\\|\\`\\*" in (tmp_path / "out/leaderboard.md").read_text()


def test_the_same_records_give_the_same_bytes(tmp_path):
    write(tmp_path / "records", make_record(), make_record("shifted"))
    for name in ("a", "b"):
        build(tmp_path / "records", tmp_path / name)
    for file in (tmp_path / "a").iterdir():
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes()


def damaged(folder):
    (folder / "9.json").write_text(json.dumps({"schema_version": 1}))


PROBLEMS = [
    (lambda f: None, [], "holds no records .*bench run"),
    (damaged, [make_record()], r"9.json breaks the schema"),
    (lambda f: None, [make_record(), make_record()], "records of the same run"),
    (lambda f: None, [make_record(status="failed", failure={"type": "E", "message": "no"})], "all 1 runs .* failed"),
]


@pytest.mark.parametrize(("damage", "records", "message"), PROBLEMS, ids=["empty", "damaged", "twice", "all-failed"])
def test_problems_are_named_and_nothing_is_written(tmp_path, damage, records, message):
    folder = tmp_path / "records"
    folder.mkdir()
    damage(write(folder, *records))
    with pytest.raises(RecordError, match=message):
        build(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_checkpoints_are_no_records(tmp_path):
    """A board can be built while runs go on."""
    folder = write(tmp_path / "records", make_record())
    hidden = folder / ".checkpoints" / "abc" / "step-000000001"
    hidden.mkdir(parents=True)
    (hidden / "manifest.json").write_text("{}")
    assert len(build(folder, tmp_path / "out")) == 1
