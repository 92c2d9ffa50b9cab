"""The package pyinotify, of which only the three system calls are used, and decoded events.

Events are read and decoded here: names stay bytes, and a read takes in what lies in the queue
without a step through the package's objects.
"""

from __future__ import annotations

import array
import fcntl
import os
import struct
import sys
import termios
import types
from collections.abc import Iterator
from typing import Any, NamedTuple

from syncd.errors import UsageError

MODIFY, ATTRIB, CLOSE_WRITE = 0x2, 0x4, 0x8
MOVED_FROM, MOVED_TO, CREATE, DELETE = 0x40, 0x80, 0x100, 0x200
DELETE_SELF, MOVE_SELF, UNMOUNT, Q_OVERFLOW, IGNORED = 0x400, 0x800, 0x2000, 0x4000, 0x8000
ONLYDIR, ISDIR = 0x1000000, 0x40000000

WANTED = MODIFY | ATTRIB | CLOSE_WRITE | MOVED_FROM | MOVED_TO | CREATE | DELETE | DELETE_SELF | ONLYDIR

_HEADER = struct.Struct("iIII")
_BUFFER = 1 << 18


class Event(NamedTuple):
    """One `struct inotify_event`."""

    watch: int
    mask: int
    cookie: int
    name: bytes


def load_package() -> Any:
    """The package pyinotify. Raises UsageError if it is not installed.

    It imports asyncore, which Python 3.12 dropped and 3.11 warns of, for a class that nobody here uses.
    So a stand-in takes its place for the moment of the import, unless somebody has loaded the real one.
    """
    stand_in = types.ModuleType("asyncore")
    stand_in.file_dispatcher = type("file_dispatcher", (), {})  # type: ignore[attr-defined]
    with_stand_in = sys.modules.setdefault("asyncore", stand_in) is stand_in
    try:
        import pyinotify
    except ImportError as error:
        raise UsageError(f"the watcher pyinotify needs the package pyinotify: {error}") from error
    finally:
        if with_stand_in:
            del sys.modules["asyncore"]
    return pyinotify


class Queue:
    """One inotify queue. Raises OSError (EMFILE) if the kernel gives none, UsageError without the package."""

    def __init__(self) -> None:
        self._calls = load_package().INotifyWrapper.create()
        self.fd: int = self._calls.inotify_init()
        if self.fd < 0:
            raise self._error()
        os.set_inheritable(self.fd, False)
        os.set_blocking(self.fd, False)

    def add(self, fd: int, mask: int) -> int:
        """Watch an open directory, not the descriptor; the same one gives the same watch again. Raises OSError."""
        watch: int = self._calls.inotify_add_watch(self.fd, f"/proc/self/fd/{fd}", mask)
        if watch < 0:
            raise self._error()
        return watch

    def remove(self, watch: int) -> None:
        """Let a watch go. One whose directory is gone already is passed over."""
        self._calls.inotify_rm_watch(self.fd, watch)

    def chunks(self) -> Iterator[list[Event]]:
        """What lies in the queue now, one read(2) after the other. What comes meanwhile is for the next time."""
        size = array.array("i", [0])
        fcntl.ioctl(self.fd, termios.FIONREAD, size)
        left = size[0]
        while left > 0:
            try:
                chunk = os.read(self.fd, _BUFFER)
            except BlockingIOError:
                return
            left -= len(chunk)
            yield list(_decode(chunk))

    def close(self) -> None:
        """Let go of all watches. Twice is harmless."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def _error(self) -> OSError:
        number: int = self._calls.get_errno()
        return OSError(number, os.strerror(number))


def _decode(chunk: bytes) -> Iterator[Event]:
    at = 0
    while at < len(chunk):
        watch, mask, cookie, length = _HEADER.unpack_from(chunk, at)
        at += _HEADER.size
        yield Event(watch, mask, cookie, chunk[at : at + length].rstrip(b"\0"))
        at += length
