"""The command line as a user meets it: exit codes, one-line errors, no traceback."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import yaml

from tests.benchmarks.conftest import TINY


def run(*arguments: str, cwd=None) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "metric_zoo.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd)


def test_from_recipe_to_leaderboard(tmp_path):
    (tmp_path / "r.yaml").write_text(yaml.safe_dump({**TINY, "kinds": ["standard"]}))
    first = run("bench", "run", "r.yaml", "--out", "records", "--cpu", cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    assert "1 runs ok, 0 failed, 0 of them done before" in first.stdout
    assert "loss=" in first.stderr and "train_top1=" in first.stderr and "[1/1]" in first.stderr
    second = run("leaderboard", "build", "records", "--out", "board", cwd=tmp_path)
    assert second.returncode == 0, second.stderr
    assert "1 configurations" in second.stdout and "1 runs" in (tmp_path / "board/index.html").read_text()


def write_bad_record(folder):
    (folder / "bad").mkdir()
    (folder / "bad/r.json").write_text(json.dumps({"schema_version": 1}))


def test_inspect_lists_every_convolution():
    result = run("inspect", "resnet18", "--source", "torchvision", "--to", "shifted")
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[-1] == "13 of 20 convolutions would become 'shifted'"
    rows = {line.split()[0]: " ".join(line.split()[1:]) for line in lines[1:21]}
    assert rows["conv1"] == "Conv2d 7x7 2x2 1 3x224x224 64x112x112 0 7 1 bn1 stem: the first convolution"
    assert rows["layer2.0.conv1"] == "Conv2d 3x3 2x2 1 64x56x56 128x28x28 2 51 1 layer2.0.bn1 shifted"
    assert rows["layer4.1.conv2"].endswith("input of 7 px, below 8")


BAD = [
    (["inspect", "resnet180"], "timm has no model 'resnet180'"),
    (["inspect", "resnet18", "--where", "((", "--to", "metric"], "is not a regular expression"),
    (["bench", "run", "nothing"], "recipe 'nothing' does not exist"),
    (["bench", "run", "bad.yaml"], "unknown key 'sedes'; did you mean 'seeds'"),
    (["bench", "run", "broken.yaml"], "is not YAML"),
    (["bench", "run", "nodata.yaml"], "data set 'cifar10' is not in nowhere"),
    (["bench", "run", "digits", "--num-processes", "0"], "num-processes is 0"),
    (["leaderboard", "build", "nowhere", "--out", "o"], "nowhere holds no records"),
    (["leaderboard", "build", "bad", "--out", "o"], "bad holds no sound record: r.json: it breaks the schema"),
    (["bench", "run"], "Missing argument"),
    (["bench", "walk"], "No such command"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD, ids=[" ".join(a) for a, _ in BAD])
def test_mistakes_are_one_line_and_exit_code_2(arguments, message, tmp_path):
    write_bad_record(tmp_path)
    (tmp_path / "bad.yaml").write_text(yaml.safe_dump({**TINY, "sedes": [0]}))
    (tmp_path / "broken.yaml").write_text("a: [")
    (tmp_path / "nodata.yaml").write_text(yaml.safe_dump({**TINY, "data": {"name": "cifar10", "root": "nowhere"}}))
    result = run(*arguments, cwd=tmp_path)
    assert result.returncode == 2
    assert message in " ".join(result.stderr.split())
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "o").exists() and not (tmp_path / "records").exists()


def test_a_failed_run_is_exit_code_1(tmp_path):
    model = {"name": "resnet10t", "options": {"num_classes": 5}}
    (tmp_path / "r.yaml").write_text(yaml.safe_dump({**TINY, "models": [model], "kinds": ["standard"]}))
    result = run("bench", "run", "r.yaml", "--out", "records", "--cpu", cwd=tmp_path)
    assert result.returncode == 1 and "Traceback" not in result.stderr
    assert "0 runs ok, 1 failed" in result.stdout and "failed: IndexError" in result.stderr
    board = run("leaderboard", "build", "records", "--out", "board", cwd=tmp_path)
    assert board.returncode == 2 and "all 1 runs in records failed, the first by IndexError" in board.stderr


def test_version_and_help():
    assert run("--version").stdout.startswith("metric-zoo ")
    for command in ([], ["bench"], ["leaderboard"], ["bench", "run"], ["leaderboard", "build"], ["demo"]):
        assert run(*command, "--help").returncode == 0


def test_help_for_a_closed_output():
    assert subprocess.run(["bash", "-c", f"{sys.executable} -m metric_zoo.cli bench --help >&-"]).returncode == 0
