"""``--help`` speaks one language: a verb, its object, and what a value is."""

from __future__ import annotations

import re
from collections.abc import Iterator

import click
import pytest
import typer
from typer.testing import CliRunner

from metric_zoo.cli import app
from tests.leaderboards.records import make_record, write

VERBS = re.findall(
    r"\w+",
    """Add Approximate Ask Build Check Compare Compute Connect Convert Do Draw End Explain Fit Give Hand Keep List
    Measure Move Print Read Run Sample Select Share Show Smooth Start Stop Submit Take Time Train Use Write""",
)
ROOT = typer.main.get_command(app)


def commands(command: click.Command = ROOT, names: tuple[str, ...] = ()) -> Iterator[tuple[str, click.Command]]:
    yield " ".join(names) or "metric-zoo", command
    for name, part in getattr(command, "commands", {}).items():
        yield from commands(part, (*names, name))


def options(command: click.Command) -> list[click.Parameter]:
    return [option for option in command.params if not getattr(option, "hidden", False)]


HELP = [(name, command.help) for name, command in commands()] + [
    (f"{name} {option.opts[0]}", getattr(option, "help", None))
    for name, command in commands()
    for option in options(command)
]


@pytest.mark.parametrize(("name", "text"), HELP, ids=[name for name, _ in HELP])
def test_help_is_a_sentence_of_a_verb_and_its_object(name, text):
    assert text and text.rstrip().endswith(".") and len(text.split()) > 3
    assert text.split()[0].strip(",") in VERBS, f"{name}: begins with {text.split()[0]!r}"


def test_to_names_a_kind_in_every_command():
    found = {name: option.help for name, c in commands() for option in options(c) if "--to" in option.opts}
    assert found and all("kind" in text for text in found.values()), found


@pytest.mark.parametrize(
    ("one", "other"), [("leaderboard build", "leaderboard publish"), ("bench submit", "leaderboard submit")]
)
def test_commands_that_sound_alike_are_told_apart(one, other):
    first, second = (dict(commands())[name].help.split(".")[0] for name in (one, other))
    assert first.split()[:3] != second.split()[:3]


@pytest.mark.parametrize("command", ["publish", "submit"])
def test_the_old_name_of_a_folder_still_works_and_says_the_new_one(command, tmp_path):
    folder = write(tmp_path / "records", make_record())
    given = folder if command == "publish" else folder / "0.json"
    result = CliRunner().invoke(app, ["leaderboard", command, str(given), "--to", str(tmp_path / "out")])
    assert result.stderr.splitlines()[0].endswith("--to, which names a kind elsewhere, will go")
    assert command == "submit" or (tmp_path / "out/index.html").exists()
