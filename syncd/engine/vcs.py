"""Where version control systems keep the lock and the state that syncd looks at."""

from __future__ import annotations

import os
import stat
from typing import NamedTuple

from syncd.kernel.contract import Root
from syncd.model.path import is_within

POINTER_LIMIT = 4096  # bytes of a `.git` file that are read


class ControlDirectory(NamedTuple):
    """One directory below the source: its lock's name, and the file that every checkout rewrites."""

    directory: bytes
    lock: bytes
    state: bytes

    @property
    def lock_path(self) -> bytes:
        """The lock, relative to the source."""
        return self.directory + b"/" + self.lock

    @property
    def state_path(self) -> bytes:
        """The state file, relative to the source."""
        return self.directory + b"/" + self.state


KNOWN = (
    ControlDirectory(b".git", b"index.lock", b"index"),
    ControlDirectory(b".hg", b"wlock", b"dirstate"),
    ControlDirectory(b".jj/working_copy", b"working_copy.lock", b"checkout"),
)


def control_directories(root: Root, source: bytes) -> tuple[ControlDirectory, ...]:
    """The places to look at in a source; whether they are there is another question.

    A `.git` file (of a worktree or submodule) is followed when it leads to a place inside the source.
    """
    pointed = _follow(root, source)
    if pointed is None:
        return KNOWN
    return (ControlDirectory(pointed, b"index.lock", b"index"), *KNOWN[1:])


def _follow(root: Root, source: bytes) -> bytes | None:
    try:
        if not stat.S_ISREG(os.stat(b".git", dir_fd=root.fd, follow_symlinks=False).st_mode):
            return None
        fd = os.open(b".git", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=root.fd)
    except OSError:
        return None
    try:
        text = os.read(fd, POINTER_LIMIT)
    except OSError:
        return None
    finally:
        os.close(fd)
    if not text.startswith(b"gitdir: "):
        return None
    path = os.path.normpath(os.path.join(source, text.removeprefix(b"gitdir: ").rstrip(b"\r\n")))
    if path == source or not is_within(path, source):
        return None
    return os.path.relpath(path, source)
