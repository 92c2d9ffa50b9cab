"""The watcher of Linux: inotify, with a thread in the native kernel that empties the system's queue."""

from __future__ import annotations

import select
from collections.abc import Collection

from syncd._native import Watcher
from syncd.kernel.contract import Base, Control, Root, Rules, Tree
from syncd.watchers.base import Coverage, Lone, Mirrored, Save


class NativeWatcher:
    """See the protocol. Raises OSError (EMFILE) when the system gives no queue. `rules` must be native ones.

    A directory that can be reached under two names (a mount of a part of the source) has one watch:
    its second name is refused (EEXIST). Directories below one that was refused are named one by one.
    """

    name = "inotify"
    message: str | None = None
    bound = 0.0

    def __init__(self, path: bytes) -> None:
        self._native = Watcher(path)
        self.fd: int = self._native.fd
        self.read = self.drain = self._native.read  # nothing stands between the caller and the words

    def cover(self, root: Root, rules: Rules) -> Coverage:
        """See the protocol."""
        return Coverage(*self._native.cover(root.fd, rules))

    def scan(self, root: Root, rules: Rules, known: Base, control: Control, force: bool) -> tuple[Coverage, Tree]:
        """See the protocol."""
        covered, tree = self._native.scan(root, rules, known, control, force)
        return Coverage(*covered), tree

    def watch_locks(self, root: Root, directory: bytes, names: Collection[bytes]) -> None:
        """See the protocol."""
        self._native.watch_locks(root.fd, directory, names)

    def listen(self, epoll: select.epoll) -> None:
        """See the protocol."""
        self._native.listen(epoll.fileno())

    def attend(self, on: bool) -> None:
        """See the protocol. The thread rests otherwise, once somebody listens."""
        self._native.attend(on)

    def mirror(self, epoll: select.epoll, base: Base, lone: Lone) -> Mirrored:
        """See the protocol."""
        base, saves, hints, ready = self._native.mirror(epoll.fileno(), base, lone)
        return Mirrored(base, [Save(*save) for save in saves], hints, ready)

    def cancel(self) -> None:
        """See the protocol."""

    def close(self) -> None:
        """See the protocol."""
        self._native.close()
