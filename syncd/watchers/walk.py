"""Walking the directories of a source that are not excluded, without following a link."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Collection, Iterable
from itertools import groupby
from typing import Protocol, runtime_checkable

from syncd.kernel.contract import Rules
from syncd.model.path import name, parent

ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)

_STEP = os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NONBLOCK | _STEP

Refuse = Callable[[bytes, OSError], None]


@runtime_checkable
class Teachable(Protocol):
    """Rules that can be told of a directory's names by others than a scan."""

    def enter(self, directory: bytes, dir_fd: int, names: Collection[bytes]) -> None:
        """Learn the rule files among `names`."""


def join(directory: bytes, name: bytes) -> bytes:
    """The path of a name in a directory."""
    return directory + b"/" + name if directory else name


def open_below(top: int, path: bytes, flags: int = os.O_RDONLY) -> int:
    """Open the directory `path` below the open directory `top`, one component at a time.

    Raises OSError; ENOTDIR or ELOOP if a component is a link or another kind of thing.
    """
    here = os.open(b".", flags | _STEP, dir_fd=top) if not path else os.dup(top)
    parts = path.split(b"/") if path else []
    for number, part in enumerate(parts, start=1):
        try:
            below = os.open(part, (flags if number == len(parts) else os.O_PATH) | _STEP, dir_fd=here)
        finally:
            os.close(here)
        here = below
    return here


def unreadable(top: int, paths: Iterable[bytes]) -> dict[bytes, int]:
    """Which files below an open directory cannot be opened for reading, and the errno of each. An absent one can."""
    failed: dict[bytes, int] = {}
    for directory, group in groupby(paths, key=parent):
        files = list(group)
        try:
            above = open_below(top, directory, os.O_PATH)
        except OSError as error:
            failed |= dict.fromkeys(files, error.errno or errno.EIO)
            continue
        for path in files:
            try:
                os.close(os.open(name(path), os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=above))
            except OSError as error:
                failed[path] = error.errno or errno.EIO
        os.close(above)
    return {path: number for path, number in failed.items() if number not in ABSENT}


def walk(
    top: int,
    path: bytes,
    rules: Rules,
    visit: Callable[[bytes, int], None],
    refuse: Refuse,
    stopped: Callable[[], bool],
) -> None:
    """Visit `path` and every directory below it, top down. `visit(path, fd)` comes before its names are read.

    What is absent by the time it is reached is passed over; other errors go to `refuse`. `path` itself
    is not judged. Teaches `rules`. Holds three descriptors at most, however deep the tree is.
    """

    def enter(place: bytes, fd: int) -> list[bytes]:
        """Visit an open directory and close it; the directories in it that are to be visited."""
        try:
            visit(place, fd)
            return _inner(place, fd, rules)
        except OSError as error:
            _note(place, error, refuse)
            return []
        finally:
            os.close(fd)

    try:
        pending = [(path, enter(path, open_below(top, path, os.O_RDONLY | os.O_NONBLOCK)))]
    except OSError as error:
        _note(path, error, refuse)
        return
    while pending and not stopped():
        directory, names = pending.pop()
        if not names:
            continue
        try:
            above = open_below(top, directory, os.O_PATH)
        except OSError as error:
            _note(directory, error, refuse)
            continue
        try:
            for name in names:
                place = join(directory, name)
                try:
                    fd = os.open(name, _READ, dir_fd=above)
                except OSError as error:
                    _note(place, error, refuse)
                else:
                    pending.append((place, enter(place, fd)))
        finally:
            os.close(above)


def _note(place: bytes, error: OSError, refuse: Refuse) -> None:
    if error.errno not in ABSENT:
        refuse(place, error)


def _inner(place: bytes, fd: int, rules: Rules) -> list[bytes]:
    """The names of the directories in an open directory that are not excluded."""
    names, directories = [], []
    with os.scandir(fd) as entries:
        for entry in entries:
            name = os.fsencode(entry.name)
            names.append(name)
            if _may_be_directory(entry):
                directories.append(name)
    if isinstance(rules, Teachable):
        rules.enter(place, fd, names)
    return [name for name in directories if not rules.excluded(join(place, name), True)]


def _may_be_directory(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir(follow_symlinks=False)
    except OSError:
        return True  # opening it will tell
