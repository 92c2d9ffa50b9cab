"""What a source is watched with: its own watcher, and the locks of its version control."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from syncd.engine.vcs import KNOWN, control_directories
from syncd.kernel.contract import Root, Rules
from syncd.watchers.base import Coverage, Watcher


class Watch:
    """One source's watcher, with what it could not cover."""

    def __init__(self, watcher: Watcher, source: bytes) -> None:
        self.watcher = watcher
        self.source = source
        self.coverage = Coverage(0)
        self._attended = 0

    def cover(self, root: Root, rules: Rules, paths: Sequence[bytes] | None = None) -> None:
        """Watch before the scan of the same places. Blocks on the disk."""
        self.coverage = self.watcher.cover(root, rules, paths)
        self.watch_locks(root)

    def watch_locks(self, root: Root) -> None:
        """Watch where locks are, and where such places appear (`git init`). To be called again when one did."""
        places = control_directories(root, self.source)
        self.watcher.watch_locks(root, b"", [place.directory.partition(b"/")[0] for place in KNOWN])
        for place in places:
            self.watcher.watch_locks(root, place.directory, (place.lock,))

    @contextmanager
    def attended(self) -> Iterator[None]:
        """For work that may be long: the watcher loses no word meanwhile. May be nested."""
        if not self._attended:
            self.watcher.attend(True)
        self._attended += 1
        try:
            yield
        finally:
            self._attended -= 1
            if not self._attended:
                self.watcher.attend(False)
