"""Directories of the target that the mirror itself has shut: it made them with the source's mode of then."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import suppress

from syncd.engine.scan import Sight
from syncd.kernel.contract import Base, Root
from syncd.model.entry import Kind
from syncd.model.path import ancestors, is_within
from syncd.watchers.walk import open_below

RIGHTS = 0o500  # without these their owner can neither list a directory nor look at what is in it


def open_shut(target: Root, base: Base, sight: Sight) -> bool:
    """Give this user his rights on such directories back, where they kept the scan out and the source can be read.

    What is to be done there needs them, and gives the directory the source's mode in the end. One whose mode is not the
    baseline's is left alone. True: there is more to see now. Raises nothing; blocks on the disk.
    """
    opened = False
    for _, fd, mode in _shut(target, base, sight):
        with suppress(OSError):
            os.chmod(f"/proc/self/fd/{fd}", mode | 0o700)
            opened |= os.fstat(fd).st_mode & RIGHTS == RIGHTS  # some filesystems take a mode and keep their own
    return opened


def find_shut(target: Root, base: Base, sight: Sight) -> list[bytes]:
    """Those that `open_shut` would begin with; there may be more below them."""
    return [path for path, _, _ in _shut(target, base, sight)]


def _shut(target: Root, base: Base, sight: Sight) -> Iterator[tuple[bytes, int, int]]:
    """(path, an O_PATH descriptor until the next step, the baseline's mode), from the top down."""
    kept_out = [trouble.path for trouble in sight.target.troubles if trouble.errno == errno.EACCES]
    unknown = [trouble.path for trouble in sight.source.troubles]
    places = {place for path in kept_out for place in (path, *ancestors(path))}
    for path in sorted(places):
        row = base.get(path)
        if row is None or row.kind != Kind.DIR or row.mode & RIGHTS == RIGHTS or not _is_seen(sight, path):
            continue
        if any(is_within(path, each) for each in unknown):
            continue
        try:
            fd = open_below(target.fd, path, os.O_PATH)
        except OSError:
            continue
        try:
            about = os.fstat(fd)
            if about.st_uid == os.geteuid() and stat.S_IMODE(about.st_mode) & 0o1777 == row.mode:
                yield path, fd, row.mode
        finally:
            os.close(fd)


def _is_seen(sight: Sight, path: bytes) -> bool:
    """Whether the source was looked at there, so that this cycle sets the mode right."""
    scope = sight.source.scope
    return scope is None or any(look.path == path or (look.deep and is_within(path, look.path)) for look in scope)
