"""Version control locks: while one is young, removals and bursts are kept back."""

from __future__ import annotations

from syncd.engine.pair import Pair
from syncd.engine.vcs import control_directories
from syncd.kernel.contract import Root
from syncd.model.entry import Entry
from syncd.model.path import display
from syncd.model.report import Halt


class LockWatch:
    """Looks at the lock names of one source. `due`: when a held lock will have been there too long."""

    def __init__(self, pair: Pair) -> None:
        self._pair = pair
        self._patience = pair.settings.timing.left_behind
        self._first: dict[tuple[bytes, int], float] = {}  # (path, inode) -> first seen
        self.held_by = ""
        self.due: float | None = None

    def look(self, now: float) -> bool:
        """Whether a lock holds at time `now`. Blocks on the disk."""
        seen: dict[tuple[bytes, int], float] = {}
        with self._pair.roots() as roots:
            if not isinstance(roots, Halt):
                seen = self._present(roots[0], now)
        self._first = seen
        young = {key: first for key, first in seen.items() if now - first < self._patience}
        named = [display(path) for path, _ in young]
        named += [f"{display(path)} (left behind; it no longer counts)" for path, _ in seen.keys() - young.keys()]
        self.held_by = ", ".join(sorted(named))
        self.due = min(young.values()) + self._patience if young else None
        return bool(young)

    def _present(self, root: Root, now: float) -> dict[tuple[bytes, int], float]:
        found = {}
        paths = [place.lock_path for place in control_directories(root, self._pair.settings.source)]
        for path, state in zip(paths, self._pair.kernel.stat_many(root, paths), strict=True):
            if isinstance(state, Entry):
                key = (path, state.seen.inode)
                found[key] = self._first.get(key, now)
        return found
