"""A watcher's words -> Hints for the line; loss becomes a rescan that no filter can drop."""

from __future__ import annotations

from collections.abc import Sequence

from syncd.engine.vcs import control_directories
from syncd.kernel.contract import Root, Rules
from syncd.model.change import Hints
from syncd.watchers.base import Coverage, Watcher


class Watch:
    """One source's watcher, with what it could not cover."""

    def __init__(self, watcher: Watcher, source: bytes) -> None:
        self.watcher = watcher
        self.source = source
        self.coverage = Coverage(0)

    def cover(self, root: Root, rules: Rules, paths: Sequence[bytes] | None = None) -> None:
        """Watch before the scan of the same places. Blocks on the disk."""
        self.coverage = self.watcher.cover(root, rules, paths)
        for place in control_directories(root, self.source):
            self.watcher.watch_locks(root, place.directory, (place.lock,))

    def hints(self, barrier: bool = False) -> Hints:
        """All words so far; with `barrier`, all that happened before the call."""
        return self.watcher.drain() if barrier else self.watcher.read()
