"""A watcher's words -> Hints for the line; loss becomes a rescan that no filter can drop."""

from __future__ import annotations

from collections.abc import Sequence

from syncd.kernel.contract import Root, Rules
from syncd.model.change import Hints
from syncd.watchers.base import Coverage, Watcher

LOCKS = {
    b".git": (b"index.lock",),
    b".hg": (b"wlock",),
    b".jj/working_copy": (b"working_copy.lock",),
}


class Watch:
    """One source's watcher, with what it could not cover."""

    def __init__(self, watcher: Watcher) -> None:
        self.watcher = watcher
        self.coverage = Coverage(0)

    def cover(self, root: Root, rules: Rules, paths: Sequence[bytes] | None = None) -> None:
        """Watch before the scan of the same places. Blocks on the disk."""
        self.coverage = self.watcher.cover(root, rules, paths)
        for directory, names in LOCKS.items():
            self.watcher.watch_locks(root, directory, names)

    def hints(self, barrier: bool = False) -> Hints:
        """All words so far; with `barrier`, all that happened before the call."""
        return self.watcher.drain() if barrier else self.watcher.read()
