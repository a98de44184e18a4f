"""Files that are no recipe: refused in one line before anything is copied, printed or waited for."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
import yaml

from metric_zoo import RecipeError
from metric_zoo.benchmarks.recipe import MAX_SEEDS, find_recipe, load_recipe
from metric_zoo.benchmarks.recipe_file import MAX_BYTES, MAX_DEPTH, read_recipe_file
from metric_zoo.benchmarks.runs import expand

OK = "name: x\nmodels: [resnet10t]\nkinds: [standard]\n"


def multiplied(first: str, line: str) -> str:
    """Thirty levels, each ten times the one before."""
    levels = (line.format(new=i, old=", ".join([f"*a{i - 1}"] * 10)) for i in range(1, 30))
    return "\n".join([f"a0: &a0 {first}", *levels])


HOSTILE = {
    "date": (OK + "data: {label: 2001-99-99}", "2001-99-99 is a date to YAML: put it in quotes"),
    "time": (OK + "data: {label: 2001-01-01 10:00:00}", "is a date to YAML"),
    "long number": (OK + f"seeds: [1{'0' * 5000}]", "a number of 5,001 characters"),
    "long hexadecimal": (OK + f"seeds: [0x{'f' * 5000}]", "a number of 5,002 characters"),
    "long sexagesimal": (OK + f"seeds: [{':'.join(['59'] * 500)}]", "a number of 1,499 characters"),
    "deep lists": (OK + f"data: {'[' * 5000}{']' * 5000}", f"line 4 has more than {MAX_DEPTH} levels"),
    "deep blocks": ("\n".join(" " * i + f"k{i}:" for i in range(200)), "levels"),
    "deep keys": ("? " * 5000, "levels"),
    "deep by aliases": (
        "\n".join(["a0: &a0 x", *(f"a{i}: &a{i} [*a{i - 1}]" for i in range(1, 99))]),
        "more than 20 levels",
    ),
    "multiplied lists": (multiplied("[x]", "a{new}: &a{new} [{old}]"), "more than 20,000 values"),
    "multiplied mappings": (multiplied("{x: 1}", "a{new}: &a{new} {{<<: [{old}]}}"), "more than 20,000 values"),
    "list in itself": (OK + "data: &a [*a]", "line 4 contains itself"),
    "mapping in itself": ("&a {name: *a}", "line 1 contains itself"),
    "same key twice": (OK + "name: y", "line 4: key 'name' is on line 1 already"),
    "same key twice below": (OK + "train:\n  lr: 1\n  lr: 2", "line 6: key 'lr' is on line 5 already"),
    "number as a key": (OK + "1: 2", "key 1 is no text"),
    "null as a key": (OK + "~: 2", "key ~ is no text"),
    "flag as a key": (OK + "on: 2", "key on is no text"),
    "list as a key": (OK + "[1, 2]: 3", "is no text"),
    "object": (OK + "data: !!python/object/apply:os.getcwd []", "!!python/object/apply:os.getcwd is not allowed"),
    "binary": (OK + "data: {label: !!binary aGk=}", "!!binary is not allowed"),
    "set": (OK + "seeds: !!set {1, 2}", "!!set is not allowed"),
    "ordered": (OK + "data: !!omap [label: x]", "!!omap is not allowed"),
    "own tag": (OK + "data: !mine x", "!mine is not allowed"),
    "not of its tag": (OK + "seeds: !!int x", "'x' is no int"),
    "no digit": (OK + "seeds: !!int ''", "'' is no int"),
    "only a sign": (OK + "seeds: !!int '-'", "'-' is no int"),
    "no float": (OK + "seeds: !!float ''", "'' is no float"),
    "infinite": (OK + "train: {lr: .inf}", ".inf is not finite"),
    "no number": (OK + "train: {lr: .nan}", ".nan is not finite"),
    "too large a number": (OK + "train: {lr: 1.0e+400}", "is not finite"),
    "null character": ("name: a\0b", "is not YAML"),
    "null character, escaped": ('name: "a\\0b"', "null character"),
    "half a character": ('name: "\\ud800"', "is no str"),
    "merges no mapping": (OK + "<<: 5", "<< takes mappings"),
    "large": (OK + "#" * MAX_BYTES, "bytes are more than"),
    "two documents": (OK + "---\na: 1", "is not YAML"),
    "comment": ("# nothing", "is empty"),
    "word": ("recipe", "is empty or a list"),
    "long anchor": (f"a: *{'x' * 9000}", "is not YAML"),
}


@pytest.mark.parametrize(("text", "message"), HOSTILE.values(), ids=HOSTILE)
def test_hostile_text(tmp_path, text, message):
    path = tmp_path / "r.yaml"
    path.write_text(text)
    with pytest.raises(RecipeError, match=message) as refused:
        load_recipe(path)
    assert "\n" not in str(refused.value) and len(str(refused.value)) < 1000


@pytest.mark.parametrize("data", ["a: 1".encode("utf-16"), b"a: \xe9", bytes(range(256))], ids=["16", "latin", "bytes"])
def test_other_encodings(tmp_path, data):
    (tmp_path / "r.yaml").write_bytes(data)
    with pytest.raises(RecipeError, match="not text in UTF-8"):
        load_recipe(tmp_path / "r.yaml")


def test_values_are_those_of_pyyaml(tmp_path):
    """What is bounded is read as before: anchors, merged keys, a byte order mark, both line ends."""
    text = "a: &x {b: 1, c: 2.5}\r\nd: {<<: *x, b: 3}\r\n"
    text += "e: [*x, null, yes, 0x1f, 1e3, 1.5e+3, 'é', \"\\u00e9\"]\nf: |\n  x\n  y\n"
    (tmp_path / "r.yaml").write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert read_recipe_file(tmp_path / "r.yaml") == yaml.safe_load(text)


def _pipe(path: Path) -> None:
    os.mkfifo(path)


PLACES = {
    "pipe": (_pipe, "is a named pipe"),
    "folder": (Path.mkdir, "is a folder"),
    "link to itself": (lambda path: path.symlink_to(path), "Too many levels of symbolic links"),
    "device": (lambda path: path.symlink_to("/dev/zero"), "is a device"),
    "link to nothing": (lambda path: path.symlink_to("nothing"), "No such file"),
}


@pytest.mark.parametrize(("make", "message"), PLACES.values(), ids=PLACES)
def test_what_is_no_file(tmp_path, make, message):
    """Neither read nor waited for, as a recipe and as one that is extended."""
    path = tmp_path / "r.yaml"
    make(path)
    with pytest.raises(RecipeError, match=message):
        load_recipe(path)
    (tmp_path / "child.yaml").write_text("extends: r.yaml\n")
    for refused in (lambda: find_recipe(str(path)), lambda: load_recipe(tmp_path / "child.yaml")):
        with pytest.raises(RecipeError, match="does not exist|is no regular file"):
            refused()


@pytest.mark.parametrize("name", ["a" * 5000, "a\0b", "", ".", "..", "~nobody/x", "digits.yaml", "x/" * 3000])
def test_names_of_no_recipe(tmp_path, name):
    with pytest.raises(RecipeError, match=r"give a YAML file or one of: .*digits") as refused:
        find_recipe(name, tmp_path)
    assert len(str(refused.value)) < 1000


def test_cycles_by_ever_other_names(tmp_path):
    (tmp_path / "y").mkdir()
    (tmp_path / "y" / "again").symlink_to(tmp_path / "y")
    for name, parent in {"up": "../y/up.yaml", "link": "again/link.yaml", "a": "./b.yaml", "b": "../y/a.yaml"}.items():
        (tmp_path / "y" / f"{name}.yaml").write_text(f"extends: {parent}\n")
        if name != "a":
            with pytest.raises(RecipeError, match="extends itself"):
                load_recipe(tmp_path / "y" / f"{name}.yaml")
    for number in range(40):
        (tmp_path / f"{number}.yaml").write_text(f"extends: {number + 1}.yaml\n")
    with pytest.raises(RecipeError, match="more than 20 recipes"):
        load_recipe(tmp_path / "0.yaml")


NUMBERS = {
    "seeds: 1000000000000": "seeds: expected how many, 1 to 10,000, or a list of them, got 1000000000000",
    "seeds: 30000000": "seeds: expected how many",
    "seeds: 0": "seeds: expected how many",
    "seeds: -3": "seeds: expected how many",
    "seeds: 1e12": "seeds: .*got '1e12'",
    "seeds: true": "seeds: .*got True",
    "seeds: [true]": "seeds.0: expected a number, got True",
    "seeds: [-1]": "seeds.0: .*greater than or equal to 0",
    "seeds: [4294967296]": "seeds.0: .*less than 4294967296",  # numpy takes no more
    "seeds: 6000\npeers: [tv]": "make 12,000 runs",
    "train: {epochs: true}": "train.epochs: expected a number",
    "train: {epochs: 1000000}": "train.epochs: .*less than or equal to 100000",
    "train: {lr: inf}": "train.lr: .*finite",
    "train: {lr: '1e999'}": "train.lr: .*finite",
    "train: {batch_size: 100000000000000000000}": "train.batch_size: .*less than or equal",
    "train: {num_workers: 100000}": "train.num_workers",
    "measure: {batch_size: 1000000000000}": "measure.batch_size",
}


@pytest.mark.parametrize(("text", "message"), NUMBERS.items(), ids=NUMBERS)
def test_numbers_without_end(tmp_path, text, message):
    (tmp_path / "r.yaml").write_text(f"{OK}{text}\n")
    began = time.monotonic()
    with pytest.raises(RecipeError, match=message):
        load_recipe(tmp_path / "r.yaml")
    assert time.monotonic() - began < 5


def test_the_most_seeds(tmp_path):
    (tmp_path / "r.yaml").write_text(f"{OK}seeds: {MAX_SEEDS}\n")
    assert load_recipe(tmp_path / "r.yaml").seeds == list(range(MAX_SEEDS))


# What a record cannot hold must not be trained: its words have at most 200 characters, its trees 65,536.
LONG = {
    "name": {"name": "n" * 201},
    "data.name": {"data": {"name": "n" * 201}},
    "data.label": {"data": {"name": "folder", "label": "n" * 201}},
    "data.root": {"data": {"root": "n" * 5000}},
    "data.image_column": {"data": {"image_column": "n" * 201}},
    "models.0.name": {"models": ["n" * 201]},
    "models.0.options": {"models": [{"name": "resnet10t", "options": {"x": "n" * 70_000}}]},
    "kinds.0.kind": {"kinds": ["n" * 201]},
    "kinds.0.options": {"kinds": [{"kind": "metric", "options": {"scale": "n" * 70_000}}]},
    "peers.0": {"peers": ["n" * 201]},
    "configuration": {"kinds": [{"kind": "metric", "where": "n" * 70_000}]},
}


@pytest.mark.parametrize(("place", "changes"), LONG.items(), ids=LONG)
def test_what_no_record_can_hold(write_recipe, place, changes):
    with pytest.raises(RecipeError, match=f"{place}.*(at most|more than)"):
        expand(load_recipe(write_recipe(**changes)))
