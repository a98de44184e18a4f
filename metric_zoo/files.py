"""Files: only such are read, whole and within bounds; written so that a reader sees the whole file or none."""

from __future__ import annotations

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


def read_text(path: Path, most: int) -> str:
    """The text of a file in UTF-8, with or without a byte order mark.

    Args:
        path: of a regular file, or a link to one; what never ends (a pipe, a device) is not waited for.
        most: bytes.

    Raises:
        OSError: if it cannot be read, or is no file; ValueError if it is too large, or no text in UTF-8.
    """
    check_regular(path)
    with open(path, "rb") as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise ValueError(f"its bytes are more than {most:,}")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError("it is not text in UTF-8") from None


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
            with suppress(OSError):
                path.rmdir()
        raise MetricZooError(f"{folder} is no folder that files can be written in: {told(error)}") from None
