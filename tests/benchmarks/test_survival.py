"""What a launch survives: folders that take no files, damaged records, clocks that are set, processes that die."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from metric_zoo import MetricZooError, RecordError
from metric_zoo.benchmarks import attempts, execute, launch, provenance, sweep
from metric_zoo.benchmarks.collect import collect_records
from metric_zoo.benchmarks.curves import draw_curves
from metric_zoo.benchmarks.interruption import RESUMABLE, UNWRITABLE
from metric_zoo.benchmarks.launch import Processes, preflight, run_recipe
from metric_zoo.benchmarks.plan import plan_recipe, show_status
from metric_zoo.benchmarks.provenance import Clock
from metric_zoo.benchmarks.recipe import load_recipe
from metric_zoo.benchmarks.record import Record
from metric_zoo.benchmarks.record_files import keep_record, read_record
from metric_zoo.benchmarks.remeasure import remeasure
from metric_zoo.benchmarks.runs import Run, expand
from metric_zoo.benchmarks.sweep import CHECKPOINTS, LOCKS, LOGS, claimed, failed_record
from metric_zoo.benchmarks.torchrun import status, words
from metric_zoo.files import prepare_folder
from metric_zoo.leaderboards.soundness import contradictions
from metric_zoo.reading import read_text
from tests.leaderboards.records import make_record


@pytest.fixture
def trained(monkeypatch) -> list[str]:
    """Runs that were trained, which takes no time: their records are made up."""
    kinds: list[str] = []

    def pretend(run: Run, accelerator, path: Path, *_: object) -> None:
        kinds.append(run.convolution.kind)
        keep_record(path, made_up(run))

    monkeypatch.setattr(execute, "execute", pretend)
    monkeypatch.setattr(launch, "preflight", lambda runs: None)
    monkeypatch.setattr(sweep, "_release", lambda accelerator: None)  # collects garbage, of which there is none
    return kinds


def made_up(run: Run) -> Record:
    return make_record(**{key: value for key, value in execute.identity(run).items() if key != "model"})


def runs_of(recipe: Path, processes: int = 1) -> list[Run]:
    return expand(load_recipe(recipe), processes)


# Records that are lines.


def test_a_run_whose_record_is_a_line_is_done(write_recipe, tmp_path, trained):
    recipe, folder = write_recipe(kinds=["standard", "metric"]), tmp_path / "out"
    assert run_recipe(recipe, folder, cpu=True) == {"ok": 2, "skipped": 0}
    collect_records(folder)
    trained.clear()
    assert run_recipe(recipe, folder, cpu=True) == {"ok": 2, "skipped": 2} and not trained
    assert not list(folder.glob("*.json")) and not (folder / LOCKS / runs_of(recipe)[0].id).exists()
    assert "2 done" in show_status(recipe, folder, None, True, False)


def test_a_failure_that_is_a_line_is_run_again(write_recipe, tmp_path, trained):
    recipe, folder = write_recipe(kinds=["standard", "metric"]), tmp_path / "out"
    run, other = runs_of(recipe)
    folder.mkdir()
    keep_record(run.path(folder), failed_record(run, Clock(), "Error", "no"))
    keep_record(other.path(folder), made_up(other))
    lines = collect_records(folder).files
    assert run_recipe(recipe, folder, cpu=True) == {"ok": 1, "failed": 1, "skipped": 2} and not trained
    assert run_recipe(recipe, folder, cpu=True, retry_failed=True) == {"ok": 2, "skipped": 1}
    assert trained == [run.convolution.kind] and read_record(run.path(folder)).status == "ok"
    assert run.path(folder).exists() and all(path.exists() for path in lines)


# Folders.


def _file(path: Path) -> None:
    path.write_text("not a folder")


PLACES = {
    "a file": lambda folder: _file(folder / "out"),
    "below a file": lambda folder: (_file(folder / "file"), (folder / "out").symlink_to(folder / "file" / "x")),
    "a link to nothing": lambda folder: (folder / "out").symlink_to(folder / "nowhere" / "x"),
    "a link to itself": lambda folder: (folder / "out").symlink_to(folder / "out"),
    "a pipe": lambda folder: os.mkfifo(folder / "out"),
    "a file for the locks": lambda folder: ((folder / "out").mkdir(), _file(folder / "out" / LOCKS)),
    "a file for the checkpoints": lambda folder: ((folder / "out").mkdir(), _file(folder / "out" / CHECKPOINTS)),
    "a file for the logs": lambda folder: ((folder / "out").mkdir(), _file(folder / "out" / LOGS)),
    "a file for the weights": lambda folder: ((folder / "out").mkdir(), _file(folder / "out" / "weights")),
}


@pytest.mark.parametrize("make", PLACES.values(), ids=PLACES)
def test_folders_that_cannot_be(write_recipe, tmp_path, trained, make):
    make(tmp_path)
    recipe = write_recipe(kinds=["standard"])
    with pytest.raises(MetricZooError, match="is no folder that files can be written in: ") as refused:
        run_recipe(recipe, tmp_path / "out", cpu=True, weights=True)
    assert "\n" not in str(refused.value) and not trained


@pytest.mark.parametrize(
    ("make", "name", "message"),
    [
        (_file, "out", "it is a file"),
        (_file, "out/x/y", ".*out is a file"),
        (lambda path: path.symlink_to("nowhere"), "out", "it is a link to nothing"),
        (lambda path: path.symlink_to(path), "out", "it is a link to itself"),
    ],
    ids=["a file", "below a file", "a link to nothing", "a link to itself"],
)
def test_what_lies_in_a_folder_s_place_is_named(tmp_path, make, name, message):
    make(tmp_path / "out")
    with pytest.raises(MetricZooError, match=f"can be written in: {message}"):
        prepare_folder(tmp_path / name)


@pytest.mark.parametrize(
    "name", ["n" * 300, "a/b/" + "n" * 300, "x/" * 2500, "a\0b"], ids=["long", "deep", "path", "null"]
)
def test_names_that_no_file_system_takes(write_recipe, tmp_path, trained, name):
    """What was made on the way is gone again."""
    recipe = write_recipe(kinds=["standard"])
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(MetricZooError, match="is no folder that files can be written in"):
        run_recipe(recipe, tmp_path / name, cpu=True)
    assert not trained and sorted(tmp_path.rglob("*")) == before
    assert show_status(recipe, tmp_path / name[:255]).endswith("1 to do") if "\0" not in name else True


def test_a_disk_that_is_full_from_the_beginning(write_recipe, tmp_path, trained, monkeypatch):
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(MetricZooError, match="No space left on device"):
        run_recipe(write_recipe(kinds=["standard"]), tmp_path / "out", cpu=True)
    assert not trained and not (tmp_path / "out").exists()


def test_a_disk_that_is_full_at_the_end(write_recipe, tmp_path, monkeypatch):
    """No failure of the run: with room, the same command writes its record and trains no step again."""
    recipe, folder = write_recipe(kinds=["standard"], train={"epochs": 1}), tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr("metric_zoo.files.os.replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left")))
        with pytest.raises(RecordError, match=r"record .*standard.*cannot be written: No space left"):
            run_recipe(recipe, folder, cpu=True)
    assert not list(folder.glob("*.json")) and not list(folder.rglob("*.tmp"))
    assert run_recipe(recipe, folder, cpu=True) == {"ok": 1, "skipped": 0}
    (log,) = (folder / LOGS).iterdir()
    assert "begins after step 22 of 22" in log.read_text()


@pytest.mark.parametrize("command", [plan_recipe, show_status], ids=["plan", "status"])
def test_a_file_has_no_runs(write_recipe, tmp_path, command):
    _file(tmp_path / "out")
    with pytest.raises(MetricZooError, match="is a file, expected a folder of records"):
        command(write_recipe(), tmp_path / "out")


# Records.

DAMAGE = {
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-100]),
    "empty": lambda path: path.write_bytes(b""),
    "no text": lambda path: path.write_bytes(b"\xff\xfe\x00"),
    "against the schema": lambda path: path.write_text('{"schema_version": 1}'),
}
FOREIGN = {
    "of a newer schema": lambda path: path.write_text('{"schema_version": 99}'),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
    "a pipe": lambda path: (path.unlink(), os.mkfifo(path)),
    "a link to nothing": lambda path: (path.unlink(), path.symlink_to("nowhere")),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_record_is_done_again(write_recipe, tmp_path, trained, damage, capfd):
    """It stops nothing, and is kept beside the new one."""
    recipe, folder = write_recipe(kinds=["standard", "shifted"]), tmp_path / "out"
    run_recipe(recipe, folder, cpu=True)
    path = runs_of(recipe)[0].path(folder)
    damage(path)
    assert (
        show_status(recipe, folder).endswith("1 done, 1 to do") and "it counts as not there" in capfd.readouterr().err
    )
    trained.clear()
    assert run_recipe(recipe, folder, cpu=True, retry_failed=True) == {"ok": 2, "skipped": 1}
    assert trained == ["standard"] and read_record(path).status == "ok"
    assert path.with_name(f"{path.name}.damaged").exists()
    damage(path)
    run_recipe(recipe, folder, cpu=True)
    assert {file.name.removeprefix(path.name) for file in folder.glob(f"{path.name}*")} == {
        "",
        ".damaged",
        ".damaged-2",
    }


@pytest.mark.parametrize("change", FOREIGN.values(), ids=FOREIGN)
def test_what_may_be_a_record_is_left_alone(write_recipe, tmp_path, trained, change, capfd):
    recipe, folder = write_recipe(kinds=["standard", "shifted"]), tmp_path / "out"
    path = runs_of(recipe)[0].path(folder)
    run_recipe(recipe, folder, cpu=True)
    change(path)
    before = path.lstat()
    trained.clear()
    assert run_recipe(recipe, folder, cpu=True, retry_failed=True) == {"ok": 1, "unreadable": 1, "skipped": 2}
    assert not trained and path.lstat() == before and not list(folder.glob("*.damaged*"))
    assert "its run is left out" in capfd.readouterr().err
    assert show_status(recipe, folder).endswith("1 done, 1 unreadable")


def test_a_plan_does_a_damaged_record_again(write_recipe, tmp_path):
    recipe = write_recipe(kinds=["standard"])
    runs_of(recipe)[0].path(tmp_path).write_text("{")
    assert " to do " in plan_recipe(recipe, tmp_path, cpu=True, estimate=False)


def test_curves_and_measurements_leave_damaged_records_out(tmp_path, capfd):
    good, bad = tmp_path / "good.json", tmp_path / "bad.json"
    keep_record(good, make_record())
    bad.write_text("{")
    draw_curves([bad, good], tmp_path / "curves.svg")
    assert "bad.json cannot be read as JSON" in capfd.readouterr().err and (tmp_path / "curves.svg").exists()
    with pytest.raises(RecordError, match="no record to measure"):
        remeasure([bad])
    with pytest.raises(RecordError, match="good.safetensors does not exist"):  # a mistake of whoever asks
        remeasure([bad, good], cpu=True)
    for command in (lambda paths: draw_curves(paths, tmp_path / "curves.svg"), remeasure):
        with pytest.raises(RecordError, match="gone.json does not exist"):
            command([good, tmp_path / "gone.json"])


@pytest.mark.parametrize("message", ["m" * 10_000, "\ud800", "\0", ""], ids=["long", "half", "null", "empty"])
def test_every_failure_can_be_recorded(write_recipe, tmp_path, monkeypatch, message):
    """Whatever an error says, and whatever bytes the command line had."""
    monkeypatch.setattr(sys, "argv", ["bench", "\udcff" * 5000])
    (run,) = runs_of(write_recipe(kinds=["standard"], name="n" * 200))
    keep_record(tmp_path / "r.json", failed_record(run, Clock(), "E" * 300, message))
    assert (
        read_record(tmp_path / "r.json").failure.message[:1] == message.encode("utf-8", "backslashreplace")[:1].decode()
    )


def test_data_whose_name_no_record_can_hold(write_recipe, tmp_path):
    from PIL import Image

    root = tmp_path / ("n" * 200)
    for part in ("train/a", "train/b", "test/a", "test/b"):
        (root / part).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(root / part / "x.png")
    runs = runs_of(write_recipe(kinds=["standard"], data={"name": "folder", "root": str(root), "image_size": 8}))
    with pytest.raises(MetricZooError, match="cannot be described in a record: name: .*at most 200"):
        preflight(runs)


# Clocks.


def test_a_clock_that_is_set_back(monkeypatch, write_recipe):
    """The oracle is what boards believe: no record ends before it began."""
    times = iter(datetime(2030, 1, 1, tzinfo=timezone.utc) - timedelta(days=day) for day in range(99))
    monkeypatch.setattr(provenance, "_now", lambda: next(times).isoformat(timespec="seconds"))
    (run,) = runs_of(write_recipe(kinds=["standard"]))
    clock = Clock()
    clock._start -= 100
    record = failed_record(run, clock, "E", "no")
    assert not [problem for problem in contradictions(record) if "began" in problem]
    assert (record.provenance.started, record.provenance.finished[:18]) == (
        "2030-01-01T00:00:00+00:00", "2030-01-01T00:01:4",
    )  # fmt: skip
    assert 100 <= record.wall_seconds < 110


# Status.


def test_status_finds_runs_of_any_number_of_processes(write_recipe, tmp_path):
    recipe, folder = write_recipe(kinds=["standard", "shifted"], seeds=2), tmp_path / "out"
    alone, both = runs_of(recipe), runs_of(recipe, 2)
    on_gpu = expand(load_recipe(recipe), 4, "cuda")
    for run in (alone[0], both[0], both[1]):
        keep_record(run.path(folder), made_up(run))
    with claimed(on_gpu[2], folder):
        text = show_status(recipe, folder)
        rows = {" ".join(line.split()[1:-1]): line.split()[-1] for line in text.splitlines()[1:6]}
        assert rows == {
            "standard seed 0": "done", "standard seed 0 (2 processes)": "done", "shifted seed 0 (2 processes)": "done",
            "standard seed 1 (4 processes, GPU)": "running", "shifted seed 1 to": "do",
        }  # fmt: skip
        assert text.endswith("3 done, 1 running, 1 to do")
    assert show_status(recipe, folder, processes=2).endswith("2 done, 2 to do")
    assert show_status(recipe, folder, processes=1, cpu=True).endswith("1 done, 3 to do")
    assert show_status(recipe, folder, gpu=True).endswith("4 to do")


# Processes.

CODES = [
    ({0: RESUMABLE, 1: RESUMABLE}, RESUMABLE, ""),
    ({1: RESUMABLE}, RESUMABLE, ""),
    ({0: -signal.SIGTERM, 1: RESUMABLE}, RESUMABLE, ""),  # before it could listen
    ({0: RESUMABLE, 1: -signal.SIGKILL}, 1, "process 1 was killed by SIGKILL"),
    ({0: -signal.SIGSEGV}, 1, "process 0 was killed by SIGSEGV"),
    ({0: RESUMABLE, 1: 3, 2: -signal.SIGABRT}, 1, "process 1 ended with exit code 3, process 2 was killed by SIGABRT"),
    ({0: UNWRITABLE, 1: RESUMABLE}, UNWRITABLE, "process 0 ended with exit code 74"),
]


@pytest.mark.parametrize(("codes", "code", "told"), CODES, ids=[str(case[0]) for case in CODES])
def test_a_death_is_no_request_to_stop(codes, code, told):
    """The others of a launch are told to stop when one has died, so one that was not decides."""
    assert (status(codes), words(codes)) == (code, told)


def test_a_run_that_ends_the_process(write_recipe, tmp_path, trained, monkeypatch):
    """A library that exits instead of raising fails its run, not the launch; a request to stop goes through."""
    recipe, folder = write_recipe(kinds=["standard", "shifted"]), tmp_path / "out"
    monkeypatch.setattr(execute, "execute", lambda *_: sys.exit("no more"))
    assert run_recipe(recipe, folder, cpu=True) == {"failed": 2, "skipped": 0}
    (record, _) = map(read_record, sorted(folder.glob("*.json")))
    assert (record.failure.type, record.failure.message) == ("SystemExit", "no more")
    monkeypatch.setattr(execute, "execute", lambda *_: sys.exit(RESUMABLE))
    with pytest.raises(SystemExit):
        run_recipe(recipe, folder, cpu=True, retry_failed=True)
    assert not list(folder.glob("*.json")) and not list(folder.glob(f"{CHECKPOINTS}/*"))


def test_a_run_that_always_takes_its_process_away(write_recipe, tmp_path, trained):
    """Three times at one place, and the others have their turn; what went on meanwhile does not count."""
    recipe, folder = write_recipe(kinds=["standard", "shifted"]), tmp_path / "out"
    dying, going_on = (folder / CHECKPOINTS / run.id for run in runs_of(recipe))
    for number in range(3):
        assert attempts.begin(dying) and attempts.begin(going_on)
        (going_on / f"step-{number}").mkdir()
        (going_on / f"step-{number}" / "manifest.json").write_text("{}")
        (dying / ".unfinished").mkdir(exist_ok=True)
        (dying / ".unfinished" / f"model-{number}.json").write_text("{}")  # it ends while it keeps its first checkpoint
    assert run_recipe(recipe, folder, cpu=True) == {"failed": 1, "ok": 1, "skipped": 0}
    assert trained == ["shifted"]
    record = read_record(runs_of(recipe)[0].path(folder))
    assert record.failure.type == "WorkerDied" and "3 times at the same place" in record.failure.message
    assert run_recipe(recipe, folder, cpu=True, retry_failed=True) == {"ok": 2, "skipped": 1}


def test_workers_that_outlive_their_launcher_are_waited_for(write_recipe, tmp_path):
    (run,) = runs_of(write_recipe(kinds=["standard"]))
    held, ended = threading.Event(), threading.Event()

    def hold() -> None:
        with claimed(run, tmp_path):
            held.set()
            time.sleep(0.7)
            ended.set()

    thread = threading.Thread(target=hold)
    thread.start()
    assert held.wait(10)
    launch._wait_until_free(run, tmp_path)
    assert ended.is_set()
    thread.join()


DEATHS = {
    "one is killed": "os.environ['RANK'] == '1' and os.kill(os.getpid(), 9)",
    "the main one is killed": "os.environ['RANK'] == '0' and os.kill(os.getpid(), 9)",
    "one exits": "os.environ['RANK'] == '1' and sys.exit(3)",
    "one says that all is well": "os.environ['RANK'] == '1' and os._exit(0)",
}


@pytest.mark.slow
@pytest.mark.distributed
@pytest.mark.parametrize("death", DEATHS.values(), ids=DEATHS)
def test_one_of_two_dies(write_recipe, tmp_path, monkeypatch, death):
    """In the first run that it begins; the other is told to stop, the run has failed, the next one is done."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "sitecustomize.py").write_text(
        "import os, pathlib, sys\n"
        f"once = pathlib.Path({str(tmp_path / 'once')!r})\n"
        "class Finder:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'metric_zoo.benchmarks.execute' and os.environ.get('RANK') and not once.exists():\n"
        f"            if {death.split(' and ')[0]}:\n"
        "                once.touch()\n"
        f"                {death.split(' and ')[1]}\n"
        "sys.meta_path.insert(0, Finder())\n"
    )
    recipe, folder = write_recipe(kinds=["standard", "shifted"], train={"epochs": 1}), tmp_path / "out"
    assert run_recipe(recipe, folder, Processes(2), cpu=True) == {"failed": 1, "ok": 1, "skipped": 0}
    records = {record.kind: record for record in map(read_record, folder.glob("*.json"))}
    assert records["standard"].failure.type == "WorkerDied" or "exit(0)" in death
    assert "plan.json" not in records["shifted"].provenance.command


def test_text_within_bounds(tmp_path):
    (tmp_path / "x").write_bytes(b"\xef\xbb\xbfhello")
    assert read_text(tmp_path / "x", 8) == "hello"
    with pytest.raises(ValueError, match="more than 7"):
        read_text(tmp_path / "x", 7)
