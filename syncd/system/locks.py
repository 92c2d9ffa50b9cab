"""One target, one writer."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from syncd.errors import TargetBusy
from syncd.model.path import display
from syncd.system import flocks
from syncd.system.dirs import runtime_dir

_TRIES, _PAUSE = 5, 0.01  # `live_targets` of another process holds each lock for microseconds


class Holder(NamedTuple):
    """Who holds a target: paths as given to it, `started` in seconds since 1970. `overlays` are relative to `source`."""

    pid: int
    source: bytes
    target: bytes
    started: float
    overlays: tuple[bytes, ...] = ()


class TargetLock:
    """The right to write one target, kept until `release` or the end of the process, however that comes.

    Two locks, since the runtime directory is this user's and the root can be locked by the container:
    the lock file decides; the lock on the target's root is only looked at, and `warning` tells of it.
    """

    def __init__(self, source: bytes, target: bytes, overlays: tuple[bytes, ...] = ()) -> None:
        self._source = source
        self._target = target
        self._overlays = overlays
        self._lock = -1
        self._root = -1
        self._path = Path()
        self.warning: str | None = None  # somebody else holds the lock on the root; who

    def acquire(self) -> Self:
        """Take it. Raises TargetBusy naming the holder, or OSError if the target is not there."""
        self._root = os.open(self._target, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            seen = os.fstat(self._root)
            self._path = runtime_dir() / f"target-{seen.st_dev}-{seen.st_ino}"
            self._lock = self._take()
            self._write()
            if not flocks.take(self._root):
                self.warning = self._warn(flocks.holder(seen.st_dev, seen.st_ino))
        except BaseException:
            self.release()
            raise
        return self

    def _write(self) -> None:
        body = {"pid": os.getpid(), "source": os.fsdecode(self._source), "target": os.fsdecode(self._target)}
        more = {"started": time.time(), "overlays": [os.fsdecode(path) for path in self._overlays]}
        text = json.dumps(body | more).encode("ascii")
        os.pwrite(self._lock, text.ljust(os.fstat(self._lock).st_size), 0)  # in one step, for those who read it now

    def _warn(self, pid: int | None) -> str:
        who = f"process {pid}" if pid else "a process that cannot be seen from here"
        return f"{display(self._target)}: {who} holds a lock on this directory; it may write there too"

    def _take(self) -> int:
        for left in reversed(range(_TRIES)):
            fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            if flocks.take(fd):
                if _is_at(fd, self._path):
                    return fd
                os.close(fd)  # the one before us took its file away
                continue
            holder = _read(fd)
            os.close(fd)
            if not left:
                raise TargetBusy(busy(self._target, holder))
            time.sleep(_PAUSE)
        raise TargetBusy(busy(self._target, None))

    def release(self) -> None:
        """Let go. Twice is harmless."""
        if self._lock >= 0:
            if _is_at(self._lock, self._path):
                self._path.unlink()  # while it is still locked, so that it is ours
            os.close(self._lock)
        if self._root >= 0:
            os.close(self._root)
        self._lock = self._root = -1

    def __enter__(self) -> Self:
        return self if self._lock >= 0 else self.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def busy(target: bytes, holder: Holder | None) -> str:
    """That somebody else writes there; what to do about it."""
    who = f"process {holder.pid} (from {display(holder.source)})" if holder else "another process"
    return f"{display(target)} is already written by {who}. Stop that one first, or use another target."


def live_targets() -> list[Holder]:
    """This user's targets that a process holds now. Files that dead processes left are passed over."""
    found = []
    for path in sorted(runtime_dir().glob("target-*")):
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            continue
        if not flocks.take(fd, shared=True) and (holder := _read(fd)) is not None:
            found.append(holder)
        os.close(fd)
    return found


def _is_at(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), os.lstat(path))
    except FileNotFoundError:
        return False


def _read(fd: int) -> Holder | None:
    try:
        body = json.loads(os.pread(fd, 1 << 20, 0))
        source, target = os.fsencode(body["source"]), os.fsencode(body["target"])
        overlays = tuple(os.fsencode(path) for path in body.get("overlays", ()))
        return Holder(int(body["pid"]), source, target, body["started"], overlays)
    except (OSError, ValueError, KeyError, TypeError):
        return None
