"""The watcher that looks for itself, where events cannot be believed."""

from __future__ import annotations

import errno
import os
import select
import threading
import time
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from syncd.kernel.contract import Kernel, Look, Root, Rules, Side, Tree
from syncd.model.change import Hints
from syncd.model.entry import Kind
from syncd.model.path import parent
from syncd.watchers.base import Coverage
from syncd.watchers.walk import join, open_below
from syncd.watchers.words import Inbox, Words

LEAST = 1.0  # seconds between two sweeps of a tree that costs nothing
SHARE = 20  # a sweep is followed by this many times the CPU time it took: 5 % of a core
CACHED = {"fuse.sshfs": 20.0}  # seconds that a type's own cache hides a name that is new on the other side
OPENERS = 8
_PATIENCE = 0.5

Locks = dict[bytes, tuple[int, int] | None]  # path -> inode and time, None if it is not there


class _Sight(NamedTuple):
    """What one sweep saw. `error` is the errno that kept it from seeing anything."""

    tree: Tree | None
    locks: Locks
    error: int = 0


_NOTHING = _Sight(None, {}, -1)


class PollWatcher:
    """See the protocol. A thread sweeps the source; it starts with `cover` and ends with `close`.

    Uses `rules` in that thread. A removal that it finds is no event: it is never told as `removed`.
    `bound` is what the last sweep showed: a change may come just after a sweep passed its place, and is told
    when the next one is done.
    """

    name = "poll"
    message: str | None = None
    mirror = scan = None

    def __init__(self, path: bytes, kernel: Kernel, fstype: str = "", least: float = LEAST) -> None:
        self._path = path
        self._kernel = kernel
        self._fstype = fstype
        self._least = least
        self._inbox: Inbox[Hints] = Inbox()
        self.fd = self._inbox.fd
        self.bound = least + CACHED.get(fstype, 0.0)
        self._control = kernel.control()
        self._rules: Rules | None = None
        self._within: tuple[Look, ...] | None = None
        self._locks: dict[bytes, frozenset[bytes]] = {}
        self._before = _NOTHING
        self._cpu = 0.0
        self._turn = threading.Condition()  # guards the counters below
        self._asked = 0  # sweeps that were wanted at once
        self._done = 0  # of those, how many a finished sweep answered
        self._closed = False
        self._failure: BaseException | None = None  # what ended the thread
        self._sweeping = threading.Lock()
        self._thread: threading.Thread | None = None

    def cover(self, root: Root, rules: Rules) -> Coverage:  # noqa: ARG002
        """See the protocol. The first call sweeps, so that later sweeps have something to compare with."""
        self._rules = rules
        if self._before.tree is None:
            self._sweep()
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="syncd-poll", daemon=True)
            self._thread.start()
        return Coverage(0)

    def restrict(self, places: Collection[bytes]) -> None:
        """Sweep only these directories with all below them. Call before `cover`, which then sweeps anew."""
        within = tuple(Look(path, True) for path in sorted(places, key=lambda path: path.split(b"/")))
        with self._sweeping:
            if within != self._within:
                self._within = within
                self._before = _NOTHING

    def watch_locks(self, root: Root, directory: bytes, names: Collection[bytes]) -> None:
        """See the protocol."""
        paths = frozenset(join(directory, name) for name in names)
        with self._sweeping:
            if self._locks.get(directory) != paths:
                before = {path: seen for path, seen in self._before.locks.items() if parent(path) != directory}
                self._locks[directory] = paths
                self._before = self._before._replace(locks=before | _look_at(root.fd, paths))

    def listen(self, epoll: select.epoll) -> None:
        """See the protocol."""
        epoll.register(self.fd, select.EPOLLIN)

    def attend(self, on: bool) -> None:
        """See the protocol. Its thread goes on anyway."""

    def read(self) -> Hints:
        """See the protocol. Raises what ended the thread, if it came to that: nothing is told any more."""
        if self._failure is not None:
            raise self._failure
        items, lost = self._inbox.take()
        words = Words()
        for hints in items:
            words.add(hints)
        words.rescan = words.rescan or lost
        return words.hints()

    def drain(self) -> Hints:
        """See the protocol. Waits for a sweep that starts after the call."""
        with self._turn:
            if self._thread is not None and not self._closed:
                self._asked += 1
                ticket = self._asked
                self._turn.notify_all()
                self._turn.wait_for(lambda: self._done >= ticket or self._closed or self._failure is not None)
        return self.read()

    def cancel(self) -> None:
        """See the protocol."""
        with self._turn:
            self._closed = True
            self._control.cancelled = True
            self._turn.notify_all()

    def close(self) -> None:
        """See the protocol. Waits for a sweep under way, which is cancelled, but not long: the share may hang."""
        self.cancel()
        if self._thread is not None:
            self._thread.join(_PATIENCE)
        self._inbox.close()

    # The thread ----------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._keep_sweeping()
        except BaseException as error:  # noqa: BLE001 - the reader raises it
            with self._turn:
                self._failure = error
                self._turn.notify_all()
            self._inbox.put(Hints(rescan=True))

    def _keep_sweeping(self) -> None:
        pause = self._pause()
        while True:
            with self._turn:
                self._turn.wait_for(lambda: self._closed or self._asked > self._done, timeout=pause)
                if self._closed:
                    return
                ticket = self._asked
            self._sweep()
            with self._turn:
                self._done = ticket
                self._turn.notify_all()
            pause = self._pause()

    def _pause(self) -> float:
        return max(self._least, SHARE * self._cpu)

    def _sweep(self) -> None:
        """Look at everything, and tell what differs from the time before. A cancelled sweep tells nothing."""
        start, cpu = time.monotonic(), time.process_time()
        with self._sweeping:
            now = self._see()
            if self._closed:
                return
            before, self._before = self._before, now
            hints = self._compare(before, now)
        used = time.process_time() - cpu
        # Other threads' work is counted too, so one busy moment may not slow down all that follow.
        self._cpu = min(used, 2 * self._cpu) if self._cpu else used
        self.bound = 2 * (time.monotonic() - start) + self._pause() + CACHED.get(self._fstype, 0.0)
        if hints:
            self._inbox.put(hints)

    def _see(self) -> _Sight:
        assert self._rules is not None
        try:
            root = self._kernel.open_root(self._path)
        except OSError as error:
            return _Sight(None, {}, error.errno or errno.EIO)
        try:
            if self._fstype in CACHED and self._before.tree is not None:
                self._refresh(root, self._before.tree)
            tree = self._kernel.scan(
                root, self._rules, Side.SOURCE, self._kernel.empty_base(), self._within, self._control, force=True
            )
            locks = _look_at(root.fd, {path for paths in self._locks.values() for path in paths})
        except OSError as error:
            return _Sight(None, {}, error.errno or errno.EIO)
        finally:
            root.close()
        return _Sight(tree, locks)

    def _compare(self, before: _Sight, now: _Sight) -> Hints:
        if before is _NOTHING and now.tree is not None:
            return Hints()
        if now.tree is None or before.tree is None:
            return Hints(rescan=now.error != before.error)
        words = Words()
        for path in now.tree.differing(before.tree):
            seen, known = now.tree.get(path), before.tree.get(path)
            kinds = {entry.kind for entry in (seen, known) if entry is not None}
            if not self._excluded(path, kinds):
                words.say(path, deep=Kind.DIR in kinds and (seen and seen.kind) != (known and known.kind))
        # A place that could not be read may have changed unseen by the time it can be read again.
        unread = [{trouble.path for trouble in sight.troubles} for sight in (now.tree, before.tree)]
        for path in unread[0] ^ unread[1]:
            words.say(path, deep=True)
        words.locks = now.locks != before.locks
        return words.hints()

    def _excluded(self, path: bytes, kinds: set[Kind]) -> bool:
        return self._rules is not None and all(self._rules.excluded(path, kind == Kind.DIR) for kind in kinds)

    def _refresh(self, root: Root, tree: Tree) -> None:
        """Open every known file: on opening, sshfs asks the server for attributes it has cached."""
        files: dict[bytes, list[bytes]] = {}
        for path, entry in tree.rows():
            if entry.kind == Kind.FILE:
                files.setdefault(parent(path), []).append(path.rpartition(b"/")[2])
        with ThreadPoolExecutor(OPENERS, thread_name_prefix="syncd-poll") as pool:
            for directory, names in files.items():
                pool.submit(self._open_files, root.fd, directory, names)

    def _open_files(self, top: int, directory: bytes, names: list[bytes]) -> None:
        try:
            above = open_below(top, directory, os.O_PATH)
        except OSError:
            return
        try:
            for name in names:
                if self._closed:
                    return
                try:
                    os.close(os.open(name, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=above))
                except OSError:
                    continue  # the scan will tell
        finally:
            os.close(above)


def _look_at(top: int, paths: Collection[bytes]) -> Locks:
    """Inode and time of each lock file that is there."""
    found: Locks = {}
    for path in paths:
        found[path] = None
        try:
            above = open_below(top, parent(path), os.O_PATH)
        except OSError:
            continue
        try:
            seen = os.stat(path.rpartition(b"/")[2], dir_fd=above, follow_symlinks=False)
            found[path] = (seen.st_ino, seen.st_mtime_ns)
        except OSError:
            pass
        finally:
            os.close(above)
    return found
