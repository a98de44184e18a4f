"""Tables and folders: files agree, hostile text is inert, what is damaged is left out, nothing is half-written."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import subprocess

import pandas as pd
import pytest

from metric_zoo import MetricZooError, RecordError
from metric_zoo.benchmarks.schema import MAX_BYTES
from metric_zoo.leaderboards.build import build
from metric_zoo.leaderboards.difference import difference
from metric_zoo.leaderboards.escaping import latex
from metric_zoo.leaderboards.statistics import leaderboard
from metric_zoo.leaderboards.tables import to_latex
from tests.leaderboards.records import make_config, make_record, write

EVIL = "=<script>alert(1)</script>|`*\u202e\x07$x$\\input{/etc/passwd}%"


def test_all_forms_agree(tmp_path):
    records = [make_record(seed=s, test=0.9 + s / 50) for s in range(2)] + [make_record("standard", test=0.8)]
    board = build(write(tmp_path / "records", *records), tmp_path / "out").board
    assert list(board.test_top1) == pytest.approx([91, 80])
    rows = list(csv.DictReader((tmp_path / "out/leaderboard.csv").open()))
    parquet = pd.read_parquet(tmp_path / "out/leaderboard.parquet")
    data = json.loads((tmp_path / "out/leaderboard.json").read_text())
    for name in ("test_top1", "test_top1_std", "runs", "inference", "kind", "group"):
        assert [str(row[name]) for row in data] == [row[name] or "None" for row in rows]
        assert parquet[name].equals(board[name])
    markdown = (tmp_path / "out/leaderboard.md").read_text()
    assert "| 91.00 ± 1.41 |" in markdown and "| 80.00 |" in markdown and "| +10.00 |" in markdown
    table = (tmp_path / "out/leaderboard.tex").read_text()
    assert r"\toprule" in table and r"91.00 $\pm$ 1.41" in table and r"Test top-1, \%" in table
    assert "Options" not in markdown, "a column without a value says nothing"


def test_tables_of_what_may_not_be_compared_are_apart():
    text = to_latex(leaderboard([make_record(), make_record(seed=1, device="H200")]))
    assert text.count(r"\begin{table}") == 2 and text.count("H200") == 1


def test_hostile_text_is_inert(tmp_path):
    failed = make_record("shifted", status="failed", failure={"type": "E", "message": EVIL})
    build(write(tmp_path / "records", make_record(model=EVIL, kind=EVIL), failed), tmp_path / "out")
    for page in (tmp_path / "out").rglob("*.html"):
        text = page.read_text()
        assert "<script>alert" not in text and "\u202e" not in text and "\x07" not in text
    for picture in (tmp_path / "out").rglob("*.svg"):
        assert "<script" not in picture.read_text()
    row = next(csv.DictReader((tmp_path / "out/leaderboard.csv").open()))
    assert row["model"].startswith("'=<script>") and row["kind"].startswith("'=")
    markdown = (tmp_path / "out/leaderboard.md").read_text()
    assert "\\<script\\>alert(1)\\</script\\>\\|\\`\\*" in markdown
    table = (tmp_path / "out/leaderboard.tex").read_text()
    assert r"\textbackslash{}input\{/etc/passwd\}\%" in table and r"\input" not in table
    names = {path.name for path in (tmp_path / "out").rglob("*")}
    assert all(re.fullmatch(r"\.?[A-Za-z0-9_.-]+", name) for name in names)


@pytest.mark.skipif(shutil.which("xelatex") is None, reason="xelatex is not installed")
def test_latex_compiles(tmp_path):
    text = to_latex(leaderboard([make_record(model=EVIL), make_record("standard")]))
    document = r"\documentclass{article}\usepackage{booktabs}\begin{document}" + text + r"\end{document}"
    (tmp_path / "t.tex").write_text(document)
    subprocess.run(["xelatex", "-interaction=nonstopmode", "-halt-on-error", "t.tex"], cwd=tmp_path, check=True)


def test_latex_has_no_bare_special_character():
    """Whatever is printable: no unescaped character that means something to LaTeX."""
    text = latex("".join(map(chr, range(32, 127))))
    bare = re.sub(
        r"\\(textbackslash|textasciitilde|textasciicircum|textless|textgreater|textbar)\{\}|\\[&%$#_{}]", "", text
    )
    assert not set(bare) & set("\\&%$#_{}~^<>|")


def test_the_same_records_give_the_same_bytes(tmp_path):
    write(tmp_path / "records", make_record(), make_record("shifted"), make_record("standard", seed=4))
    for name in ("a", "b"):
        build(tmp_path / "records", tmp_path / name)
    files = {path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*") if path.is_file()}
    assert len(files) > 12
    for file in files:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes(), file


def truncated(folder):
    (folder / "9.json").write_text((folder / "0.json").read_text()[:500])


def from_the_future(folder):
    (folder / "9.json").write_text(
        (folder / "0.json").read_text().replace('"schema_version": 1', '"schema_version": 2')
    )


def twice(folder):
    shutil.copy(folder / "0.json", folder / "9.json")


def endless(folder):
    with (folder / "9.json").open("wb") as file:
        file.truncate(MAX_BYTES + 1)


def nested(folder):
    (folder / "9.json").write_text("[" * 100_000)


def no_number(folder):
    (folder / "9.json").write_text((folder / "0.json").read_text().replace('"p50": 3.0', '"p50": NaN'))


def changed(folder, **changes):
    data = json.loads((folder / "0.json").read_text())
    (folder / "9.json").write_text(json.dumps({**data, **changes}))


def endless_number(folder):
    (folder / "9.json").write_text((folder / "0.json").read_text().replace('"gflops": 0.5', '"gflops": 1e999'))


def other_identity(folder):
    changed(folder, id="0" * 12)


def bad_hits(folder):
    changed(folder, test_hits="!!!")


def deep(folder):
    tree = {}
    for _ in range(50):
        tree = {"a": tree}
    changed(folder, config=tree)


def wide(folder):
    changed(folder, config={str(number): "x" * 100 for number in range(700)})


def two_seeds_in_one(folder):
    changed(folder, seed=0.0)


def path_for_an_id(folder):
    data = json.loads((folder / "0.json").read_text())
    (folder / "9.json").write_text(json.dumps({**data, "id": "../../x"}))


def long_name(folder):
    data = json.loads((folder / "0.json").read_text())
    (folder / "9.json").write_text(json.dumps({**data, "id": "0" * 12, "model": "x" * 10_000}))


PROBLEMS = [
    (truncated, "cannot be read as JSON"),
    (from_the_future, "schema version 2, this program reads up to 1: upgrade"),
    (twice, "is of the same run as 0.json"),
    (endless, "bytes are more than"),
    (nested, "cannot be read as JSON"),
    (no_number, "NaN is no number"),
    (endless_number, "gflops: Input should be a finite number"),
    (other_identity, "but the configuration's hash is"),
    (bad_hits, "test_hits: "),
    (deep, "has more than ten levels"),
    (wide, "has more than 65536 characters"),
    (two_seeds_in_one, "seed: Input should be a valid integer"),
    (path_for_an_id, "id: String should match pattern"),
    (long_name, "model: String should have at most 200 characters"),
]


@pytest.mark.parametrize(("damage", "reason"), PROBLEMS, ids=[damage.__name__ for damage, _ in PROBLEMS])
def test_what_is_no_sound_record_is_left_out_and_listed(tmp_path, damage, reason):
    folder = write(tmp_path / "records", make_record())
    damage(folder)
    built = build(folder, tmp_path / "out")
    assert [problem.file for problem in built.collection.problems] == ["9.json"]
    assert reason in built.collection.problems[0].reason and str(tmp_path) not in built.collection.problems[0].reason
    assert len(built.board) == 1
    page = (tmp_path / "out/index.html").read_text()
    assert "Files left out" in page and "9.json" in page and str(tmp_path) not in page


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([], "holds no records .*bench run"),
        (
            [make_record(status="failed", failure={"type": "E", "message": "no"})],
            "all 1 runs .* failed, the first by E: no",
        ),
    ],
    ids=["empty", "all failed"],
)
def test_where_nothing_can_be_shown_nothing_is_written(tmp_path, records, message):
    (tmp_path / "records").mkdir()
    write(tmp_path / "records", *records)
    with pytest.raises(RecordError, match=message):
        build(tmp_path / "records", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_older_board_is_replaced_whole_and_nothing_else(tmp_path):
    write(tmp_path / "records", make_record("shifted"))
    build(tmp_path / "records", tmp_path / "out")
    stale = tmp_path / "out" / "runs" / "stale.html"
    stale.write_text("")
    build(tmp_path / "records", tmp_path / "out")
    assert not stale.exists() and (tmp_path / "out" / "index.html").exists()
    precious = tmp_path / "home"
    precious.mkdir()
    (precious / "thesis.tex").write_text("x")
    with pytest.raises(MetricZooError, match="exists and is no leaderboard"):
        build(tmp_path / "records", precious)
    assert [path.name for path in precious.iterdir()] == ["thesis.tex"]
    (tmp_path / "out" / "CNAME").write_text("example.org")
    with pytest.raises(MetricZooError, match="holds 'CNAME', which is of no leaderboard"):
        build(tmp_path / "records", tmp_path / "out")
    assert (tmp_path / "out" / "CNAME").exists() and (tmp_path / "out" / "index.html").exists()
    (tmp_path / "out" / "CNAME").unlink()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["home", "out", "records"], "nothing temporary is left"


def test_a_board_that_cannot_be_written_leaves_the_older_one(tmp_path, monkeypatch):
    from pathlib import Path

    write(tmp_path / "records", make_record())
    build(tmp_path / "records", tmp_path / "out")
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    genuine = Path.write_bytes

    def full(path, content):
        if path.name == "index.html":
            raise OSError(28, "No space left on device")
        return genuine(path, content)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(MetricZooError, match="No space left on device"):
        build(tmp_path / "records", tmp_path / "out")
    assert {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()} == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "records"]


def test_checkpoints_are_no_records(tmp_path):
    """A board can be built while runs go on."""
    folder = write(tmp_path / "records", make_record())
    hidden = folder / ".checkpoints" / "abc" / "step-000000001"
    hidden.mkdir(parents=True)
    (hidden / "manifest.json").write_text("{}")
    assert len(build(folder, tmp_path / "out").board) == 1


def test_difference_of_two_folders(tmp_path):
    old = write(tmp_path / "old", make_record(), make_record("shifted"), make_record("standard"))
    changed = make_record(seed=1, test=0.96)
    new = write(tmp_path / "new", make_record(), changed, make_record("standard"), make_record("deformable"))
    words = [line.split() for line in difference(old, new).splitlines()[1:]]
    assert sorted((line[0], line[3]) for line in words) == [
        ("changed", "metric"), ("gone", "shifted"), ("new", "deformable"),
    ]  # fmt: skip
    assert "1 -> 2" in difference(old, new) and "90.00 -> 93.00" in difference(old, new)
    assert difference(old, old) == "no difference"


OPTIONS = {"options": {"eps_omega": 0.5, "x": 'a,\n"b'}}
OPTIONS["config"] = make_config() | {"kind": {"kind": "metric", **OPTIONS}}


def test_runs_on_other_hardware_or_data_are_other_runs(tmp_path):
    """The same recipe and seed: one identity of the configuration, four runs."""
    data = make_record().dataset.model_copy(update={"fingerprint": "g"})
    config = make_config(device="cuda")
    records = [make_record(config=config, device=name) for name in ("H100", "H200")]
    records += [make_record(), make_record(dataset=data), make_record()]
    built = build(write(tmp_path / "records", *records), tmp_path / "out")
    assert len(built.board) == 4 and built.board.group.nunique() == 4
    assert [problem.reason for problem in built.collection.problems] == ["is of the same run as 2.json"]
    assert len(list((tmp_path / "out" / "runs").iterdir())) == 4


def test_models_of_similar_names_have_pages_of_their_own(tmp_path):
    names = ("resnet18", "ResNet18", "resnet-18", "resnet18!")
    build(write(tmp_path / "records", *(make_record(model=name) for name in names)), tmp_path / "out")
    pages = [path.name.lower() for path in (tmp_path / "out" / "models").iterdir()]
    assert len(set(pages)) == 4


def test_nothing_infinite_reaches_a_table(tmp_path):
    """What is divided by may be zero."""
    build(write(tmp_path / "records", make_record(gflops=0.0)), tmp_path / "out")
    json.loads((tmp_path / "out/leaderboard.json").read_text(), parse_constant=pytest.fail)
    assert "inf" not in (tmp_path / "out/leaderboard.csv").read_text().split("\n")[1].split(",")


def test_a_cell_cannot_be_an_argument_of_the_line_before():
    assert latex("[9999pt] x").startswith("{}[") and latex("*x").startswith("{}*")


def test_csv_reads_back(tmp_path):
    build(write(tmp_path / "records", make_record(**OPTIONS)), tmp_path / "out")
    frame = pd.read_csv(io.StringIO((tmp_path / "out/leaderboard.csv").read_text()))
    assert len(frame) == 1 and frame["test_top1"][0] == 90
