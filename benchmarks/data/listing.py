"""Which files of a folder are its pictures."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from torchvision.datasets.folder import IMG_EXTENSIONS

from metric_zoo.errors import DataError
from metric_zoo.text import told

_LEFT_BEHIND = ("__MACOSX", "@eaDir", "$RECYCLE.BIN", "lost+found")
"""Folders that systems and archives leave among the data, with pictures of their own in some."""

_DEEPEST = 100
"""Levels of folders; the system itself refuses the names of what lies much deeper."""


def is_hidden(name: str) -> bool:
    """Whether what has this name is not the user's: ``.ipynb_checkpoints``, ``._photo.jpg``, ``__MACOSX``."""
    return name.startswith(".") or name in _LEFT_BEHIND


def is_picture(name: str) -> bool:
    """Whether a file's name says so, in capitals or not."""
    return name.lower().endswith(IMG_EXTENSIONS)


def subfolders(folder: Path) -> list[str]:
    """Names of the folders right below, sorted.

    Raises:
        DataError: if it cannot be listed.
    """
    return sorted(entry.name for entry in _entries(folder) if _is_folder(entry))


def pictures_below(folder: Path) -> list[str]:
    """Paths of all that is called a picture, in the order of torchvision's image folders: by folder, then by name.

    Raises:
        DataError: for a folder that cannot be listed, that is too deep, or that leads back to one above it.
    """
    return sorted(_walk(folder), key=os.path.split)


def _walk(top: Path) -> Iterator[str]:
    left: list[tuple[Path | str, tuple[tuple[int, int], ...]]] = [(top, ())]
    while left:
        folder, above = left.pop()
        entries, status = _entries(folder), os.stat(folder)
        own = status.st_dev, status.st_ino
        if own in above:
            raise DataError(f"{folder} leads back to a folder above it: remove that link")
        if len(above) == _DEEPEST:
            raise DataError(f"{top} has folders more than {_DEEPEST} deep")
        for entry in entries:
            if _is_folder(entry):
                left.append((entry.path, (*above, own)))
            elif is_picture(entry.name):
                yield entry.path


def _entries(folder: Path | str) -> list[os.DirEntry]:
    """All but the hidden ones; links that lead nowhere are no folders."""
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if not is_hidden(entry.name)]
    except OSError as error:
        raise DataError(f"{folder} cannot be listed: {told(error)}") from None


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # links in a circle
        return False
