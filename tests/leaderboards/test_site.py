"""The site as files: every link leads somewhere inside it, nothing is fetched, pages say what the records say."""

from __future__ import annotations

import html.parser
import json
import posixpath
from pathlib import Path
from urllib.parse import unquote

import pytest
import yaml

from metric_zoo import RecordError
from metric_zoo.benchmarks.recipe import load_recipe
from metric_zoo.benchmarks.runs import expand
from metric_zoo.leaderboards.build import build
from metric_zoo.leaderboards.site import measurements
from metric_zoo.leaderboards.site.kernels import kernels
from metric_zoo.leaderboards.site.pages import recipe_of
from tests.leaderboards.records import make_record, write

ROOT = Path(__file__).parents[2]


class Page(html.parser.HTMLParser):
    """Cells of the tables, the links, the ids, and the Content-Security-Policy."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.links: list[str] = []
        self.ids: set[str] = set()
        self.policy = ""
        self.inline = 0
        self._cell = False
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.links += [given[name] for name in ("src", "href", "action", "srcset", "data") if name in given]
        self.ids |= {given["id"]} if "id" in given else set()
        self.inline += (tag in ("script", "style") and "src" not in given) or any(n.startswith("on") for n in given)
        self.inline += "style" in given
        if given.get("http-equiv") == "Content-Security-Policy":
            self.policy = given["content"]
        if tag == "tr":
            self.rows.append([])
        self._cell = tag in ("td", "th") or (self._cell and tag == "a")
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        self._cell = self._cell and tag not in ("td", "th")

    def handle_data(self, data):
        if self._cell:
            self.rows[-1][-1] += data


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """Three kinds of two models, one of them with a name made to escape; a failure; operators and conversion."""
    folder = tmp_path_factory.mktemp("site")
    names = ("resnet18", "../../x?#<b>")
    records = [make_record(k, s, model=m) for m in names for k in ("standard", "metric", "shifted") for s in (0, 1)]
    records.append(make_record("deformable", status="failed", failure={"type": "E", "message": "no memory"}))
    more = [
        kernels(ROOT / "docs/kernels.json"),
        measurements.operators(ROOT / "docs/operators.json"),
        measurements.conversion(ROOT / "docs/conversion.csv"),
    ]
    build(write(folder / "records", *records), folder / "out", more)
    return folder / "out"


def test_every_link_leads_somewhere_inside(site):
    pages = {path.relative_to(site).as_posix(): Page(path.read_text()) for path in site.rglob("*.html")}
    assert {"index.html", "classification.html", "operators.html", "conversion.html"} < set(pages)
    assert sum(name.startswith("runs/") for name in pages) == 13 and sum(n.startswith("models/") for n in pages) == 2
    for name, page in pages.items():
        for link in page.links:
            path, _, fragment = link.partition("#")
            target = posixpath.normpath(posixpath.join(posixpath.dirname(name), unquote(path))) if path else name
            assert not target.startswith("..") and (site / target).is_file(), (name, link)
            if fragment and "=" not in fragment:
                assert fragment in pages[target].ids, (name, link)
    linked = {link for page in pages.values() for link in page.links}
    assert any(link.startswith("runs/") for link in linked) or any("/runs/" in link for link in linked)


def test_no_page_may_fetch_or_run_anything_foreign(site):
    for path in site.rglob("*.html"):
        page = Page(path.read_text())
        assert page.inline == 0, path
        policy = dict(rule.split(" ", 1) for rule in page.policy.split("; "))
        assert policy["default-src"] == "'none'" and set(policy.values()) == {"'none'", "'self'"}
        assert not any(":" in link for link in page.links), "no scheme, so no other host"


def test_the_board_says_what_the_records_say(site):
    page = Page((site / "classification.html").read_text())
    heading = page.rows[0]
    row = next(row for row in page.rows[1:] if "metric" in row)
    assert row[heading.index("Test top-1, %")] == "90.00 ± 0.00" and row[heading.index("Seeds")] == "2"
    assert row[heading.index("Against standard")] == "+0.00" and row[heading.index("Rank")] == "1"


def test_a_runs_page_reproduces_it(site, tmp_path):
    """The recipe on the page expands to that run alone, by its hash."""
    config = json.loads(
        (ROOT / "tests/leaderboards/run_config.json").read_text()
    )  # of a run that the harness planned, as it writes it
    record = make_record(config=config, seed=config["seed"], kind=config["kind"]["kind"])
    text = recipe_of(record)
    assert yaml.safe_load(text)["seeds"] == [config["seed"]]
    (tmp_path / "run.yaml").write_text(text)
    (run,) = expand(load_recipe(tmp_path / "run.yaml"), processes=config["processes"], device=config["device"])
    assert run.id == record.id


def test_boards_of_what_is_measured_without_training(site):
    operators, conversion = (Page((site / f"{name}.html").read_text()) for name in ("operators", "conversion"))
    results = json.loads((ROOT / "docs/operators.json").read_text())["results"]
    first = next(r for r in results if r["operator"] == "metric")
    expected = f"{first['milliseconds']['median']:.1f} ± "
    row = next(row for row in operators.rows if row and row[0] == first["case"])
    assert row[operators.rows[0].index("metric, ms")].startswith(expected)
    assert len(conversion.rows) == 1 + 1371 + 121


def test_board_of_kernels(site):
    page = Page((site / "kernels.html").read_text())
    report = json.loads((ROOT / "docs/kernels.json").read_text())
    star = next(r for r in report["results"] if (r["target"], r["method"]) == ("star", "24x4"))
    row = next(row for row in page.rows if row[:2] == ["star", "24x4"])
    assert row[2:5] == ["96", f"{star['psnr']:.1f}", "56.0"]
    effects = [row for row in page.rows if row and row[0] in ("tilt-shift", "rotational bokeh", "radial motion")]
    ours = [row for row in effects if row[1] in ("24x4", "32x4")]
    assert len(ours) == 3 and all(float(row[3]) > float(row[4]) for row in ours)


@pytest.mark.parametrize("board", [kernels, measurements.operators, measurements.conversion])
def test_other_files_are_refused(board, tmp_path):
    (tmp_path / "x").write_text("{}")
    with pytest.raises(RecordError, match="is not what 'metric-zoo"):
        board(tmp_path / "x")
    with pytest.raises(RecordError, match="is not what 'metric-zoo"):
        board(tmp_path / "missing")
