"""The watcher of Linux in plain Python, on the package pyinotify."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import threading
from collections.abc import Callable, Collection, Iterator, Sequence

from syncd.kernel.contract import Root, Rules
from syncd.model.change import Hints
from syncd.model.path import any_above
from syncd.watchers.base import Coverage
from syncd.watchers.rawqueue import (
    CLOSE_WRITE,
    CREATE,
    DELETE,
    DELETE_SELF,
    IGNORED,
    ISDIR,
    MOVE_SELF,
    MOVED_FROM,
    MOVED_TO,
    Q_OVERFLOW,
    UNMOUNT,
    WANTED,
    Event,
    Queue,
)
from syncd.watchers.walk import join, open_below, walk
from syncd.watchers.words import Words


class PyinotifyWatcher:
    """See the protocol. Raises OSError (EMFILE) if the kernel gives no queue, UsageError without the package.

    A directory that can be reached under two names (a bind mount of a part of the source) has one
    watch: its second name is refused (EEXIST).
    """

    name = "pyinotify"
    message: str | None = None
    mirror = scan = None
    bound = 0.0

    def __init__(self, path: bytes) -> None:
        self._path = path
        self._queue = Queue()
        self.fd = self._queue.fd
        self._rules: Rules | None = None
        self._identity = (0, 0)
        self._paths: dict[int, bytes] = {}  # watch descriptor -> path
        self._watches: dict[bytes, int] = {}  # and back
        self._locks: dict[int, frozenset[bytes]] = {}
        self._refused: dict[bytes, int] = {}
        self._left: dict[int, bytes] = {}  # names moved away, by cookie: the other half may be in the next read
        self._running = threading.Lock()
        self._closed = threading.Event()

    # Calls ---------------------------------------------------------------------------------------

    def cover(self, root: Root, rules: Rules) -> Coverage:
        """See the protocol."""
        with self._call() as usable:
            if not usable:
                return Coverage(0)
            self._rules = rules
            self._identity = (root.device, root.inode)
            self._refused.clear()
            self._refresh(root.fd, [b""])
            return Coverage(len(self._paths), tuple(self._refused), _worst(self._refused.values()))

    def watch_locks(self, root: Root, directory: bytes, names: Collection[bytes]) -> None:
        """See the protocol."""
        with self._call() as usable, contextlib.suppress(OSError):
            if not usable:
                return
            fd = open_below(root.fd, directory)
            try:
                # The same events as for any directory: the call replaces the mask of a watch that is there.
                self._locks[self._queue.add(fd, _mask(directory))] = frozenset(names)
            finally:
                os.close(fd)

    def listen(self, epoll: select.epoll) -> None:
        """See the protocol."""
        epoll.register(self.fd, select.EPOLLIN)

    def attend(self, on: bool) -> None:
        """See the protocol. The kernel keeps what it has room for."""

    def read(self) -> Hints:
        """See the protocol."""
        words = Words()
        with self._call() as usable, contextlib.ExitStack() as stack:
            if usable:
                batch = _Batch(words, stack)
                for events in self._queue.chunks():
                    batch.walked.clear()  # what lies in a later chunk may have happened after the walk
                    for event in events:
                        self._hear(batch, event)
                self._settle(batch)
        return words.hints()

    def drain(self) -> Hints:
        """See the protocol. The kernel queues an event within the call that causes it: reading is enough."""
        return self.read()

    def cancel(self) -> None:
        """See the protocol."""

    def close(self) -> None:
        """See the protocol."""
        self._closed.set()
        self._let_go()

    @contextlib.contextmanager
    def _call(self) -> Iterator[bool]:
        """One call at a time, False when closed. `close` of another thread takes effect at the call's end."""
        with self._running:
            yield not self._closed.is_set()
        if self._closed.is_set():
            self._let_go()

    def _let_go(self) -> None:
        if self._running.acquire(blocking=False):
            self._queue.close()
            self._running.release()

    # Watches -------------------------------------------------------------------------------------

    def _walk(self, top: int, path: bytes) -> set[int]:
        """Watch `path` and all below it; the watches that are there now."""
        assert self._rules is not None
        seen: set[int] = set()

        def visit(place: bytes, fd: int) -> None:
            try:
                watch = self._queue.add(fd, _mask(place))
            except OSError as error:
                self._refuse(place, error)
                return
            if self._place(top, watch, place, fd):
                seen.add(watch)

        walk(top, path, self._rules, visit, self._refuse, self._closed.is_set)
        return seen

    def _refuse(self, path: bytes, error: OSError) -> None:
        self._refused[path] = error.errno or errno.EIO

    def _place(self, top: int, watch: int, path: bytes, fd: int) -> bool:
        """Note that a watch stands for `path`. False if it still stands for another name."""
        before = self._paths.get(watch)
        if before is not None and before != path:
            if _same(top, before, fd):
                self._refused[path] = errno.EEXIST
                return False
            self._watches.pop(before, None)
        displaced = self._watches.get(path)
        if displaced is not None and displaced != watch:
            self._drop(displaced)
        self._paths[watch], self._watches[path] = path, watch
        return True

    def _forget(self, watch: int) -> bytes | None:
        """A watch is gone: its path, if it had one."""
        path = self._paths.pop(watch, None)
        if path is not None and self._watches.get(path) == watch:
            del self._watches[path]
        return path

    def _drop(self, watch: int) -> None:
        self._forget(watch)
        if watch not in self._locks:
            self._queue.remove(watch)

    def _refresh(self, top: int, places: Sequence[bytes]) -> None:
        """Walk these places, and drop every watch at or below them that was not met: it is elsewhere or gone."""
        seen: set[int] = set()
        for place in places:
            seen |= self._walk(top, place)
        among = frozenset(places)
        everything = b"" in among
        stale = [w for w, path in self._paths.items() if w not in seen and (everything or any_above(path, among))]
        for watch in stale:
            self._drop(watch)

    # Events --------------------------------------------------------------------------------------

    def _hear(self, batch: _Batch, event: Event) -> None:
        words = batch.words
        watch, mask, cookie, name = event
        if mask & (Q_OVERFLOW | UNMOUNT):
            words.rescan = True
        self._hear_lock(words, watch, mask, name)
        directory = self._paths.get(watch)
        if directory is None:
            return
        if mask & (IGNORED | DELETE_SELF):
            self._forget(watch)
            if mask & IGNORED or not directory:
                words.rescan = True
            elif not self._excluded(directory, is_dir=True):
                words.say(directory, deep=True, removed=True)  # another one may stand there by now
        elif name:
            self._hear_name(batch, join(directory, name), mask, cookie)
        elif not directory:
            if mask & MOVE_SELF:
                words.rescan = True
            else:
                words.say(b"")

    def _hear_lock(self, words: Words, watch: int, mask: int, name: bytes) -> None:
        names = self._locks.get(watch)
        if names is None:
            return
        if mask & (IGNORED | DELETE_SELF):
            del self._locks[watch]
            words.locks = True
        elif name in names:
            words.locks = True

    def _hear_name(self, batch: _Batch, path: bytes, mask: int, cookie: int) -> None:
        is_dir = bool(mask & ISDIR)
        if self._excluded(path, is_dir):
            return
        words = batch.words
        if mask & (CREATE | MOVED_TO):
            if mask & MOVED_TO and (old := batch.left.pop(cookie, None) or self._left.pop(cookie, None)) is not None:
                words.moved(old, path)
            words.say(path, ready=bool(mask & MOVED_TO), deep=is_dir)
        elif mask & (MOVED_FROM | DELETE):
            words.say(path, deep=is_dir, removed=True, gone=True)
            if mask & MOVED_FROM:
                batch.left[cookie] = path
                if is_dir:
                    batch.gone.append(path)
            return
        else:
            is_dir = is_dir and path not in self._watches  # it may have become readable just now
            words.say(path, ready=bool(mask & CLOSE_WRITE), deep=is_dir)
        if is_dir and not any_above(path, batch.walked):
            batch.walked.add(path)
            self._look(batch, [path], lambda top, places: self._walk(top, places[0]))

    def _excluded(self, path: bytes, is_dir: bool) -> bool:
        if self._rules is None:
            return True
        # A rule file that is ignored itself is none of the source's, but what it says has changed.
        return self._rules.excluded(path, is_dir) and (is_dir or not self._rules.teaches(path))

    def _settle(self, batch: _Batch) -> None:
        """After the events of one read: let go of directories that were moved away."""
        if batch.gone:
            self._look(batch, batch.gone, self._refresh)
        self._left = batch.left

    def _look(self, batch: _Batch, places: Sequence[bytes], action: Callable[[int, Sequence[bytes]], object]) -> None:
        """Do something with the root, which is opened for this read only. A refused watch is a loss."""
        self._refused.clear()
        top = self._open(batch)
        if top < 0:
            batch.words.rescan = True
            return
        action(top, places)
        if _worst(self._refused.values()) not in (0, errno.EACCES, errno.EPERM):
            batch.words.rescan = True

    def _open(self, batch: _Batch) -> int:
        """The root, if it is still the one that was covered; else -1."""
        if batch.top is None:
            batch.top = -1
            with contextlib.suppress(OSError):
                fd = os.open(self._path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
                batch.stack.callback(os.close, fd)
                seen = os.fstat(fd)
                if (seen.st_dev, seen.st_ino) == self._identity:
                    batch.top = fd
        return batch.top


class _Batch:
    """What one read has met so far."""

    def __init__(self, words: Words, stack: contextlib.ExitStack) -> None:
        self.words = words
        self.stack = stack
        self.top: int | None = None
        self.walked: set[bytes] = set()
        self.gone: list[bytes] = []
        self.left: dict[int, bytes] = {}


def _mask(path: bytes) -> int:
    return WANTED if path else WANTED | MOVE_SELF


def _worst(numbers: Collection[int]) -> int:
    """The errno to tell of several: limits first, since they can be raised."""
    for number in (errno.ENOSPC, errno.EMFILE, errno.EEXIST):
        if number in numbers:
            return number
    return next(iter(numbers), 0)


def _same(top: int, path: bytes, fd: int) -> bool:
    """Whether `path` leads to the open directory."""
    try:
        other = open_below(top, path, os.O_PATH)
    except OSError:
        return False
    try:
        return os.path.samestat(os.fstat(other), os.fstat(fd))
    finally:
        os.close(other)
