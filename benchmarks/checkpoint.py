"""Checkpoints of a run: whole or not there, checked before they are trusted, the last two kept."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object

from metric_zoo.benchmarks.randomness import random_states, set_random_states
from metric_zoo.benchmarks.state import read_state, write_state
from metric_zoo.errors import MetricZooError
from metric_zoo.files import sha256_of
from metric_zoo.reading import read_json
from metric_zoo.text import told, utf8

_MANIFEST, _UNFINISHED = "manifest.json", ".unfinished"
_KEPT = 2
_LONGEST = 2**26
"""Bytes of a manifest: it has a line for every epoch."""
_FORMAT = "safetensors and JSON"
"""Manifests without this word stand beside pickles."""

T = TypeVar("T")


class Checkpoints:
    """Of one run, in a folder of its own.

    What accelerate holds (models, optimisers, schedulers, scaler, what is registered with it) and the random numbers of
    every process go into files of `metric_zoo.benchmarks.state`, the ``progress`` of the run into a manifest beside the
    SHA-256 of every file. Nothing is pickled, and nothing unpickled.

    Args:
        folder: of this run.
        accelerator: that everything to be saved has been prepared by, or registered with.
    """

    def __init__(self, folder: Path, accelerator: Accelerator) -> None:
        self._folder, self._accelerator = folder, accelerator

    def save(self, step: int, progress: dict[str, Any]) -> None:
        """Keep the state after so many steps; called by every process.

        If that is impossible (a full disk), it is said, nothing half-written stays, and the last checkpoint holds.
        """
        main, unfinished = self._accelerator.is_main_process, self._folder / _UNFINISHED
        # All processes learn of a problem before the next step that they take together.
        problems = broadcast_object_list([self._begin(unfinished) if main else []])[0]
        if not problems:
            problems = [problem for problem in gather_object([self._write(unfinished)]) if problem]
        if main and not problems:
            problems = self._finish(unfinished, step, progress)
        if main and problems:
            shutil.rmtree(unfinished, ignore_errors=True)
            _say(f"no checkpoint after step {step} ({problems[0]}); going on")
        self._accelerator.wait_for_everyone()  # a process that ended now would have the main one stopped, too

    @staticmethod
    def _begin(unfinished: Path) -> list[str]:
        try:
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir(parents=True)
        except OSError as error:
            return [f"{type(error).__name__}: {error}"]
        return []

    def _write(self, unfinished: Path) -> str:
        try:
            if self._accelerator.is_main_process:
                for name, part in self._parts().items():
                    write_state(unfinished, name, part.state_dict())
            write_state(
                unfinished, self._random(self._accelerator.process_index), random_states(self._accelerator.device)
            )
        except Exception as error:  # whatever a full or broken disk makes of it, in any of the libraries
            return f"{type(error).__name__}: {error}"
        return ""

    def _finish(self, unfinished: Path, step: int, progress: dict[str, Any]) -> list[str]:
        try:
            manifest = {"format": _FORMAT, "step": step, "progress": progress, "files": _digests(unfinished)}
            with (unfinished / _MANIFEST).open("w", encoding="utf-8") as file:
                json.dump(manifest, file)
                file.flush()
                os.fsync(file.fileno())
            final = self._folder / f"step-{step:09d}"
            shutil.rmtree(final, ignore_errors=True)
            unfinished.rename(final)
        except OSError as error:
            return [f"{type(error).__name__}: {error}"]
        for old in self._found()[_KEPT:]:
            shutil.rmtree(old, ignore_errors=True)
        return []

    def _parts(self) -> dict[str, Any]:
        """What has a state, by the names of its files; networks without wrappers."""
        held = self._accelerator
        groups = {
            "model": [held.unwrap_model(model) for model in held._models],
            "optimizer": held._optimizers,
            "scheduler": held._schedulers,
            "registered": held._custom_objects,
            "scaler": [] if held.scaler is None else [held.scaler],
        }
        return {
            f"{name}_{number}" if number else name: part
            for name, parts in groups.items()
            for number, part in enumerate(parts)
        }

    @staticmethod
    def _random(process: int) -> str:
        return f"random_{process}"

    def restore(self, check: Callable[[Any], T] = dict) -> T | None:
        """Load the newest checkpoint that is whole; called by every process.

        Args:
            check: turns the progress of a checkpoint into what is returned; a ValueError says that it is damaged.

        Returns:
            The progress, or None if there is no checkpoint.

        Raises:
            MetricZooError: if a whole checkpoint is of another network.
        """
        chosen = self._newest_intact(check) if self._accelerator.is_main_process else None
        path, progress = broadcast_object_list([chosen or (None, None)])[0]
        if path is not None:
            self._load(path)
        return progress

    def _load(self, path: Path) -> None:
        try:
            for name, part in self._parts().items():
                part.load_state_dict(read_state(path, name))
            set_random_states(self._accelerator.device, read_state(path, self._random(self._accelerator.process_index)))
        except Exception as error:  # of any part's own checks
            problem = f"{type(error).__name__}: {told(error)}"
            raise MetricZooError(
                f"checkpoint {path} does not fit the run ({problem}): remove it to begin anew"
            ) from None

    def _newest_intact(self, check: Callable[[Any], T]) -> tuple[Path, T] | None:
        for path in self._found():
            try:
                manifest = _manifest(path)
                if manifest.get("format") != _FORMAT:
                    _set_aside(path)
                    continue
                if _digests(path) == manifest["files"]:
                    self._read_once(path)
                    return path, check(manifest["progress"])
                problem = "its files have changed"
            except Exception as error:  # whatever damaged files make of a reader
                problem = f"{type(error).__name__}: {told(error)}"
            shutil.rmtree(path, ignore_errors=True)  # or it would count as one of those kept
            _say(f"checkpoint {path} is damaged ({problem}); trying the one before")
        return None

    def _read_once(self, path: Path) -> None:
        """Before any process loads a part of it: a manifest may agree with files that are not all there."""
        processes = range(self._accelerator.num_processes)
        for name in [*self._parts(), *map(self._random, processes)]:
            read_state(path, name)

    def _found(self) -> list[Path]:
        """The newest first."""
        return sorted(self._folder.glob("step-*"), reverse=True)

    def remove(self) -> None:
        """All of them: the run is over."""
        shutil.rmtree(self._folder, ignore_errors=True)


def last_position(folder: Path) -> str:
    """How far a run's last checkpoint is, in words; empty without one."""
    for path in sorted(folder.glob("step-*"), reverse=True):
        try:
            progress = _manifest(path)["progress"]
            return f"epoch {progress['epoch']:d} done, step {progress['step']:d} of the next"
        except (OSError, ValueError, KeyError, TypeError):  # it is being replaced at this moment, or damaged
            continue
    return ""


def _manifest(path: Path) -> dict[str, Any]:
    """Of one checkpoint.

    Raises:
        OSError, ValueError: if there is none.
    """
    found = read_json(path / _MANIFEST, _LONGEST)
    if not isinstance(found, dict):
        raise ValueError(f"its manifest is a {type(found).__name__}")
    return found


def _set_aside(path: Path) -> None:
    """For the version that wrote it, until the run is over."""
    aside = path.with_name(f"older-{path.name}")
    shutil.rmtree(aside, ignore_errors=True)
    path.rename(aside)
    _say(f"checkpoint {path} is of an older version, whose pickled files are not read: it is now {aside.name}")


def _say(text: str) -> None:
    print(utf8(text), file=sys.stderr, flush=True)


def _digests(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): sha256_of(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != _MANIFEST
    }
