"""Files: read whole within bounds, written so that a reader sees the whole file or none."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from metric_zoo.errors import MetricZooError

_PROBE = 2**16
"""Bytes that a folder must have room for: more than the record of a short run."""


def read_text(path: Path, most: int) -> str:
    """The text of a file in UTF-8, with or without a byte order mark.

    Args:
        path: of a regular file, or a link to one; what never ends (a pipe, a device) is not waited for.
        most: bytes.

    Raises:
        OSError: if it cannot be read; ValueError if it is no file, too large, or no text in UTF-8.
    """
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise ValueError("it is no regular file")
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
            with suppress(OSError, ValueError):
                path.rmdir()
        raise MetricZooError(f"{folder} is no folder that files can be written in: {reason(error)}") from None


def reason(error: Exception) -> str:
    """An error in words, without the paths that `OSError` repeats."""
    return getattr(error, "strerror", None) or str(error)
