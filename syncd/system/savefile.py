"""State files: written beside, flushed, renamed."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

UNSAVED = ".save-"  # begins the name of a file that is being written


class SaveFile:
    """`with SaveFile(path) as file: file.write(...)`: afterwards `path` holds all of it, also after a power cut.

    If anything fails, `path` is as it was, nothing is left beside it, and the error is raised.
    Blocks on the disk. The directory must exist. `mode` are the permission bits of the new file.
    """

    def __init__(self, path: Path, mode: int = 0o600) -> None:
        self._path = path
        self._mode = mode
        self._temporary = ""

    def __enter__(self) -> BinaryIO:
        import tempfile  # late: a start has better things to do than to load its archive formats

        fd, self._temporary = tempfile.mkstemp(prefix=UNSAVED, dir=self._path.parent)
        self._file = os.fdopen(fd, "wb")
        return self._file

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            with self._file as file:
                if kind is not None:
                    return
                file.flush()
                os.fchmod(file.fileno(), self._mode)
                os.fsync(file.fileno())
            os.rename(self._temporary, self._path)
            self._temporary = ""
        finally:
            if self._temporary:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(self._temporary)
        flush_directory(self._path.parent)


def flush_directory(path: Path) -> None:
    """Make renames in a directory last."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
