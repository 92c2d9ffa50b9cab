"""Hints and the time -> Batch: when a path has been quiet long enough to be looked at.

Pure: the clock is an argument (seconds, monotonic). A lone save passes at once; removals wait, since
git, vim and others remove and make again; a burst of paths becomes one batch.
"""

from __future__ import annotations

from syncd.model.change import Batch, Hints
from syncd.model.settings import Timing


class Settle:
    """Collects hints until they are ready. One thread only."""

    def __init__(self, timing: Timing | None = None) -> None:
        self.timing = timing or Timing()
        self._named: dict[bytes, float] = {}  # distinct paths of the last `quiet` seconds
        self._ready: dict[bytes, float] = {}  # path -> first word
        self._waiting: dict[bytes, tuple[float, float]] = {}  # path -> first and last word
        self._burst = False
        self._everything = False
        self._first = 0.0  # of the burst
        self._last = 0.0
        self._ready_set: set[bytes] = set()  # paths of the burst, whatever was said of them
        self._deep: set[bytes] = set()
        self._removed: set[bytes] = set()
        self._moves: list[tuple[bytes, bytes]] = []
        self._held_since: float | None = None
        self._released: float | None = None

    def __bool__(self) -> bool:
        return bool(self._ready or self._waiting or self._burst)

    def __len__(self) -> int:
        return len(self._ready) + len(self._waiting) + len(self._ready_set)

    def offer(self, hints: Hints, now: float) -> None:
        """Take in what a watcher said. Later words on a path replace earlier ones."""
        if not (hints.ready or hints.waiting or hints.rescan):
            return
        self._deep |= hints.deep
        self._removed |= hints.removed
        self._moves += hints.moves
        self._everything |= hints.rescan
        if not self._burst and (hints.rescan or self._named_lately(hints, now) > self.timing.few):
            self._begin_burst(now)
        if self._burst:
            self._ready_set |= hints.ready
            self._ready_set |= hints.waiting
            self._last = now
            return
        for path in hints.ready:
            first = self._waiting.pop(path, (now, now))[0]
            self._ready.setdefault(path, first)
        for path in hints.waiting:
            first = self._waiting.get(path, (self._ready.pop(path, now), now))[0]
            self._waiting[path] = (first, now)

    def hold(self, held: bool, now: float) -> None:
        """A version control lock is there (or is gone): keep back removals and bursts."""
        if held and self._held_since is None:
            self._held_since, self._released = now, None
        elif not held and self._held_since is not None:
            stopped = now - self._held_since
            self._held_since, self._released = None, now + self.timing.released
            self._first += stopped
            self._waiting = {path: (first + stopped, last) for path, (first, last) in self._waiting.items()}

    @property
    def held(self) -> bool:
        """Whether a lock keeps something back."""
        return self._held_since is not None

    def due(self) -> float | None:
        """When `take` will next have something; None while nothing is pending or all of it is held."""
        times = [0.0] if self._ready else []
        if self._burst and not self.held:
            times.append(self._burst_due())
        times += [self._path_due(path, *words) for path, words in self._waiting.items() if not self._kept_back(path)]
        return min(times, default=None)

    def take(self, now: float) -> Batch | None:
        """The batch that is ready, or None. Never blocks."""
        if self._burst:
            if self.held or now < self._burst_due():
                return None
            return self.flush()
        ready = set(self._ready)
        for path, words in list(self._waiting.items()):
            if not self._kept_back(path) and now >= self._path_due(path, *words):
                ready.add(path)
        return self._batch(ready) if ready else None

    def flush(self) -> Batch | None:
        """Everything pending, ready or not, held or not."""
        if not self:
            return None
        return self._batch(self._ready.keys() | self._waiting.keys() | self._ready_set)

    def _batch(self, paths: set[bytes]) -> Batch:
        """Hand out `paths` (all of them, if a burst is on) with what was said of them, and forget it."""
        everything, self._everything = self._everything, False
        if self._burst or paths >= self._waiting.keys():
            since = self._first if self._burst else min(self._first_word(path) for path in paths)
            batch = Batch(
                frozenset(paths), frozenset(self._deep), frozenset(self._removed), tuple(self._moves), everything, since
            )
            self._deep, self._removed, self._moves = set(), set(), []
            self._ready, self._waiting, self._ready_set, self._burst = {}, {}, set(), False
            return batch
        since = min(self._first_word(path) for path in paths)
        moves = tuple(pair for pair in self._moves if paths.issuperset(pair))
        batch = Batch(
            frozenset(paths), frozenset(self._deep & paths), frozenset(self._removed & paths), moves, everything, since
        )
        for path in paths:
            self._ready.pop(path, None)
            self._waiting.pop(path, None)
        self._deep -= paths
        self._removed -= paths
        self._moves = [pair for pair in self._moves if pair not in moves]
        return batch

    def _first_word(self, path: bytes) -> float:
        return self._ready[path] if path in self._ready else self._waiting[path][0]

    def _named_lately(self, hints: Hints, now: float) -> int:
        """How many distinct paths the last `quiet` seconds named, these included."""
        total = len(hints.ready) + len(hints.waiting)
        if total > self.timing.few:
            return total
        named = {path: at for path, at in self._named.items() if now - at < self.timing.quiet}
        named.update(dict.fromkeys(hints.ready, now))
        named.update(dict.fromkeys(hints.waiting, now))
        self._named = named
        return len(named)

    def _begin_burst(self, now: float) -> None:
        self._burst = True
        firsts = [*self._ready.values(), *(first for first, _ in self._waiting.values())]
        self._first = min(firsts, default=now)
        self._last = now
        self._ready_set = set(self._ready) | set(self._waiting)
        self._ready.clear()
        self._waiting.clear()

    def _burst_due(self) -> float:
        flood = len(self._ready_set) > self.timing.many or self._everything
        quiet = self.timing.flood_quiet if flood else self.timing.quiet
        hold = self.timing.flood_hold if flood else self.timing.hold
        if self._released is not None and self._released >= self._last:
            return self._released  # a lock went after the last word: its work is complete
        return min(self._last + quiet, self._first + hold)

    def _path_due(self, path: bytes, first: float, last: float) -> float:
        if self._released is not None and self._released >= last and path in self._removed:
            return self._released
        return min(last + self.timing.quiet, first + self.timing.hold)

    def _kept_back(self, path: bytes) -> bool:
        return self.held and path in self._removed
