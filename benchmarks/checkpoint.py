"""Checkpoints of a run: whole or not there, checked before they are trusted, the last two kept."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object

_MANIFEST, _UNFINISHED = "manifest.json", ".unfinished"
_KEPT = 2


class Checkpoints:
    """Of one run, in a folder of its own.

    What accelerate holds (models, optimisers, scaler, the random numbers of every process) is saved by accelerate; the
    ``progress`` of the run goes into a manifest beside the SHA-256 of every file.

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
            print(f"no checkpoint after step {step} ({problems[0]}); going on", file=sys.stderr, flush=True)
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
            self._accelerator.save_state(str(unfinished), safe_serialization=True)
        except Exception as error:  # whatever a full or broken disk makes of it, in any of the libraries
            return f"{type(error).__name__}: {error}"
        return ""

    def _finish(self, unfinished: Path, step: int, progress: dict[str, Any]) -> list[str]:
        try:
            manifest = {"step": step, "progress": progress, "files": _digests(unfinished)}
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

    def restore(self) -> dict[str, Any] | None:
        """Load the newest checkpoint whose files are what they were; called by every process.

        Returns:
            Its progress, or None if there is none.
        """
        chosen = self._newest_intact() if self._accelerator.is_main_process else None
        path, progress = broadcast_object_list([chosen or (None, None)])[0]
        if path is not None:
            self._accelerator.load_state(str(path))
        return progress

    def _newest_intact(self) -> tuple[Path, dict[str, Any]] | None:
        for path in self._found():
            try:
                manifest = json.loads((path / _MANIFEST).read_text(encoding="utf-8"))
                if _digests(path) == manifest["files"]:
                    return path, manifest["progress"]
                problem = "its files have changed"
            except (OSError, ValueError, KeyError, TypeError) as error:
                problem = f"{type(error).__name__}: {error}"
            shutil.rmtree(path, ignore_errors=True)  # or it would count as one of those kept
            print(f"checkpoint {path} is damaged ({problem}); trying the one before", file=sys.stderr, flush=True)
        return None

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
            progress = json.loads((path / _MANIFEST).read_text(encoding="utf-8"))["progress"]
            return f"epoch {progress['epoch']} done, step {progress['step']} of the next"
        except (OSError, ValueError, KeyError, TypeError):  # it is being replaced at this moment, or damaged
            continue
    return ""


def _digests(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): _digest(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != _MANIFEST
    }


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:  # hashlib.file_digest came with Python 3.11
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
