"""What a source is watched with: its own watcher, and the locks of its version control."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from syncd.engine.vcs import KNOWN, control_directories
from syncd.kernel.contract import Base, Control, Kernel, Root, Rules, Side, Tree
from syncd.watchers.base import Coverage, Watcher


class Watch:
    """One source's watcher, with what it could not cover."""

    def __init__(self, watcher: Watcher, source: bytes) -> None:
        self.watcher = watcher
        self.source = source
        self.coverage = Coverage(0)
        self._attended = 0

    def scan(self, kernel: Kernel, root: Root, rules: Rules, base: Base, control: Control, force: bool) -> Tree:
        """Watch everything anew and look at it: `Kernel.scan` of the whole source. Raises as that does."""
        if self.watcher.scan is not None:
            self.coverage, tree = self.watcher.scan(root, rules, base, control, force)
            self.watch_locks(root)
        else:
            self.coverage = self.watcher.cover(root, rules)
            self.watch_locks(root)
            tree = kernel.scan(root, rules, Side.SOURCE, base, None, control, force)
        return tree

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
