"""Events for most of a source, and sweeps for the rest."""

from __future__ import annotations

import contextlib
import errno
import os
import select
from collections.abc import Callable, Collection, Sequence

from syncd.kernel.contract import Kernel, Root, Rules
from syncd.model.change import Hints
from syncd.model.path import ancestors, display
from syncd.system.limits import shortage
from syncd.system.mounts import events_lie, mounts_below
from syncd.watchers.base import Coverage, Mirror, Watcher
from syncd.watchers.poll import PollWatcher
from syncd.watchers.words import Words

_POLLED = (errno.ENOSPC, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EEXIST)


class Joined:
    """An inotify watcher whose refused directories are polled, and mounts below the source whose events lie.

    `message` tells the user what is polled and why, None while nothing is; it changes only in `cover`.
    """

    def __init__(self, inner: Watcher, path: bytes, kernel: Kernel) -> None:
        self.name = inner.name
        self.bound = inner.bound
        self.message: str | None = None
        self._inner = inner
        self._path = path
        self._kernel = kernel
        self._poll: PollWatcher | None = None
        self._places: tuple[bytes, ...] = ()
        self._closed = False
        self.read: Callable[[], Hints] = inner.read  # see the protocol; nothing stands between while nothing is polled
        self.mirror: Mirror | None = inner.mirror
        self._polled = select.epoll()  # of the poll watcher's descriptor, while there is one
        self._either = select.epoll()
        self._either.register(inner.fd, select.EPOLLIN)
        self._either.register(self._polled, select.EPOLLIN)
        self.fd = self._either.fileno()

    def cover(self, root: Root, rules: Rules, paths: Sequence[bytes] | None) -> Coverage:
        """See the protocol."""
        covered = self._inner.cover(root, rules, paths)
        refused = covered.refused if covered.errno in _POLLED else ()
        lying = self._lying(rules)
        kept = self._places if paths is not None else ()
        self._places = tops({*refused, *lying, *kept})
        self._tell(covered, lying)
        if not self._places:
            self._end_polling()
            return covered
        if self._poll is None:
            self._poll = PollWatcher(self._path, self._kernel, next(iter(lying.values()), ""))
            self._polled.register(self._poll.fd, select.EPOLLIN)
            self.read, self.mirror = self._read_both, None
        self._poll.restrict(self._places)
        self._poll.cover(root, rules, paths)
        self.bound = max(self._inner.bound, self._poll.bound)
        return covered

    def watch_locks(self, root: Root, directory: bytes, names: Collection[bytes]) -> None:
        """See the protocol. Where directories are polled, this one may be short of a watch as well."""
        self._inner.watch_locks(root, directory, names)
        if self._poll is not None:
            self._poll.watch_locks(root, directory, names)

    def listen(self, epoll: select.epoll) -> None:
        """See the protocol."""
        self._inner.listen(epoll)
        epoll.register(self._polled, select.EPOLLIN)

    def attend(self, on: bool) -> None:
        """See the protocol."""
        self._inner.attend(on)

    def _read_both(self) -> Hints:
        return self._joined(self._inner.read(), self._poll.read() if self._poll is not None else Hints())

    def drain(self) -> Hints:
        """See the protocol."""
        if self._poll is None:
            return self._inner.drain()
        return self._joined(self._inner.drain(), self._poll.drain())

    def close(self) -> None:
        """See the protocol."""
        if not self._closed:
            self._closed = True
            self._inner.close()
            self._end_polling()
            self._either.close()
            self._polled.close()

    def _joined(self, told: Hints, found: Hints) -> Hints:
        """What was found first, then what was told: an event says more of a path than a sweep."""
        if self._poll is not None:
            self.bound = max(self._inner.bound, self._poll.bound)
        if not found:
            return told
        words = Words()
        words.add(found)
        words.add(told)
        return words.hints()

    def _lying(self, rules: Rules) -> dict[bytes, str]:
        """Mounts below the source whose events lie, with their types."""
        top = os.path.realpath(self._path).rstrip(b"/") + b"/"
        found = {mount.point[len(top) :]: mount.fstype for mount in mounts_below(self._path)}
        return {path: fstype for path, fstype in found.items() if events_lie(fstype) and not rules.excluded(path, True)}

    def _tell(self, covered: Coverage, lying: dict[bytes, str]) -> None:
        said = []
        if covered.errno in _POLLED:
            short = shortage(covered.watched + len(covered.refused), covered.errno)
            said.append(short or f"{len(covered.refused)} directories get no watch: {os.strerror(covered.errno)}.")
        said += [f"{display(path)} is {events_lie(fstype)}." for path, fstype in lying.items()]
        if said:
            said.append(f"Polling {len(self._places)} directories and what is below them.")
        self.message = " ".join(said) or None

    def _end_polling(self) -> None:
        poll, self._poll = self._poll, None
        self.read, self.mirror = self._inner.read, self._inner.mirror
        if poll is not None:
            with contextlib.suppress(OSError):
                self._polled.unregister(poll.fd)
            poll.close()
            self.bound = self._inner.bound


def tops(paths: Collection[bytes]) -> tuple[bytes, ...]:
    """Those of some directories that lie below no other one of them, in order."""
    among = frozenset(paths)
    if b"" in among:
        return (b"",)
    return tuple(sorted(path for path in among if not any(above in among for above in ancestors(path))))
