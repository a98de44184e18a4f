"""Files: only such are opened, and they are written so that a reader sees the whole file or none."""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from metric_zoo.errors import MetricZooError
from metric_zoo.text import told

_KINDS = {
    "a folder": stat.S_ISDIR,
    "a named pipe": stat.S_ISFIFO,
    "a socket": stat.S_ISSOCK,
    "a device": lambda mode: stat.S_ISCHR(mode) or stat.S_ISBLK(mode),
}
_PROBE = 2**16
"""Bytes that a folder must have room for: more than the record of a short run."""


def check_regular(path: Path | str) -> os.stat_result:
    """The status of a file; whoever opened a pipe or a device might wait for ever.

    Raises:
        OSError: if it is missing, out of reach, or no file.
    """
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        kind = next((name for name, is_one in _KINDS.items() if is_one(status.st_mode)), "something else")
        raise OSError(f"it is {kind}, not a file")
    return status


def sha256_of(path: Path | str) -> str:
    """Of what a file holds, in 64 hexadecimal digits.

    Raises:
        OSError: if it cannot be read.
    """
    digest = hashlib.sha256()
    with open(path, "rb") as file:  # hashlib.file_digest came with Python 3.11
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` that takes its place when the block ends well, and vanishes otherwise.

    Raises:
        OSError: if the folder is missing or not writable.
    """
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o644)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def prepare_folder(folder: Path) -> None:
    """Make a folder with its parents, and try whether files can be written in it.

    Raises:
        MetricZooError: saying why not; what was made on the way is gone again.
    """
    made = [path for path in (folder, *folder.parents) if not os.path.lexists(path)]
    try:
        str(folder).encode()
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".probe-") as probe:
            probe.write(bytes(_PROBE))
            probe.flush()
            os.fsync(probe.fileno())
    except (OSError, ValueError) as error:
        for path in made:
            with suppress(OSError, ValueError):
                path.rmdir()
        raise MetricZooError(
            f"{folder} is no folder that files can be written in: {_obstacle(folder) or told(error)}"
        ) from None


def _obstacle(folder: Path) -> str:
    """What lies in a folder's place or in that of one above it; empty if nothing does."""
    for path in (folder, *folder.parents):
        what = "it" if path == folder else str(path)
        if os.path.isfile(path):
            return f"{what} is a file"
        if os.path.islink(path) and not os.path.exists(path):
            return f"{what} is a link to {'itself' if os.path.lexists(os.path.realpath(path)) else 'nothing'}"
    return ""
