"""Events for most of a source, and sweeps for the rest."""

from __future__ import annotations

import contextlib
import errno
import os
import select
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

from syncd.kernel.contract import Base, Control, Kernel, Root, Rules, Side, Tree
from syncd.model.change import Hints
from syncd.model.path import ancestors, display
from syncd.system.limits import shortage
from syncd.system.mounts import Unheard, unheard
from syncd.watchers.base import Coverage, Mirror, WatchedScan, Watcher
from syncd.watchers.words import Words

if TYPE_CHECKING:
    from syncd.watchers.poll import PollWatcher

_POLLED = (errno.ENOSPC, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EEXIST)


class Joined:
    """An inotify watcher beside which refused directories are polled, and places of which it hears nothing.

    These are mounts below the source whose events lie, and files that are mounted by themselves; with `whole` also the
    source, when such a mount comes there. `message` tells the user what is polled and why, None while nothing is; it changes only in `cover`.
    """

    def __init__(self, inner: Watcher, path: bytes, kernel: Kernel, *, whole: bool = False) -> None:
        self.name = inner.name
        self.bound = inner.bound
        self.message: str | None = None
        self._inner = inner
        self._path = path
        self._kernel = kernel
        self._whole = whole
        self._poll: PollWatcher | None = None
        self._fstype = ""
        self._places: tuple[bytes, ...] = ()
        self._closed = self._cancelled = False
        self.read: Callable[[], Hints] = inner.read  # see the protocol; nothing stands between while nothing is polled
        self.mirror: Mirror | None = inner.mirror
        self._polled = select.epoll()  # of the poll watcher's descriptor, while there is one
        self._either = select.epoll()
        self._either.register(inner.fd, select.EPOLLIN)
        self._either.register(self._polled, select.EPOLLIN)
        self.fd = self._either.fileno()

    @property
    def scan(self) -> WatchedScan | None:
        """See the protocol."""
        return None if self._inner.scan is None else self._scan

    def _scan(self, root: Root, rules: Rules, known: Base, control: Control, force: bool) -> tuple[Coverage, Tree]:
        assert self._inner.scan is not None
        covered, tree = self._inner.scan(root, rules, known, control, force)
        self._poll_the_rest(covered, root, rules)
        if self._poll is not None:  # it knows only what came after its first sweep
            tree = self._kernel.scan(root, rules, Side.SOURCE, known, None, control, force)
        return covered, tree

    def cover(self, root: Root, rules: Rules) -> Coverage:
        """See the protocol."""
        covered = self._inner.cover(root, rules)
        self._poll_the_rest(covered, root, rules)
        return covered

    def _poll_the_rest(self, covered: Coverage, root: Root, rules: Rules) -> None:
        refused = covered.refused if covered.errno in _POLLED else ()
        places = unheard(self._path).items()
        lying = {
            path: place for path, place in places if (path or self._whole) and not rules.excluded(path, place.lies)
        }
        self._places = tops({*refused, *lying})
        self._tell(covered, lying)
        if not self._places:
            self._end_polling()
            return
        fstype = next((place.fstype for place in lying.values() if place.lies), "")
        if self._poll is not None and fstype not in ("", self._fstype):  # of which the sweeps have to know
            self._end_polling()
        if self._poll is None:
            from syncd.watchers.poll import PollWatcher  # late: few need it, and it loads concurrent.futures

            poll = PollWatcher(self._path, self._kernel, fstype)
            self._fstype = fstype
            self._polled.register(poll.fd, select.EPOLLIN)
            self._poll = poll
            if self._cancelled:  # between the making and now
                self._poll.cancel()
            self.read, self.mirror = self._read_both, None
        self._poll.restrict(self._places)
        self._poll.cover(root, rules)
        self.bound = max(self._inner.bound, self._poll.bound)

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

    def cancel(self) -> None:
        """See the protocol."""
        self._cancelled = True
        if (poll := self._poll) is not None:
            poll.cancel()

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

    def _tell(self, covered: Coverage, lying: dict[bytes, Unheard]) -> None:
        said = []
        if covered.errno in _POLLED:
            short = shortage(covered.watched + len(covered.refused), covered.errno)
            said.append(short or f"{len(covered.refused)} directories get no watch: {os.strerror(covered.errno)}.")
        said += [f"{display(path) or 'The source'} is {place.reason}." for path, place in lying.items()]
        if said:
            said.append(f"Polling {len(self._places)} places and what is below them.")
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
