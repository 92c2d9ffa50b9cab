"""Hints and the time -> Batch: when a path has been quiet long enough to be looked at.

Pure: the clock is an argument (seconds, monotonic). A lone save passes at once; removals wait, since
git, vim and others remove and make again; a burst of paths becomes one batch.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import chain, islice
from math import inf
from typing import NamedTuple

from syncd.model.change import NONE, Batch, Hints
from syncd.model.settings import Timing


class _Word(NamedTuple):
    """What is known of a waiting path. `stopped`: how long locks had been held in all at its first word."""

    first: float
    last: float
    stopped: float


@dataclass(slots=True)
class _Burst:
    """Many paths that share one batch, whatever was said of each."""

    began: float
    first: float  # first word on any path, also from before the burst
    stopped: float
    last: float
    paths: set[bytes] = field(default_factory=set)
    deep: set[bytes] = field(default_factory=set)
    removed: set[bytes] = field(default_factory=set)
    moves: list[tuple[bytes, bytes]] = field(default_factory=list)
    everything: bool = False

    def add(self, hints: Hints, now: float) -> None:
        """Take in words with set operations only."""
        self.paths |= hints.ready
        self.paths |= hints.waiting
        self.deep |= hints.deep
        self.removed |= hints.removed
        self.moves += hints.moves
        self.everything |= hints.rescan
        self.last = now

    def batch(self) -> Batch:
        """All of it."""
        paths, deep, removed = frozenset(self.paths), frozenset(self.deep), frozenset(self.removed)
        return Batch(paths, deep, removed, tuple(self.moves), self.everything, self.first)


class Settle:
    """Collects hints until they are ready. One thread only."""

    def __init__(self, timing: Timing | None = None) -> None:
        self.timing = timing or Timing()
        self._named: dict[bytes, float] = {}  # the `few` + 1 paths named last, latest at the end
        self._ready: dict[bytes, float] = {}  # path -> first word
        self._waiting: dict[bytes, _Word] = {}
        self._deep: set[bytes] = set()  # of the paths above, as the next two
        self._removed: set[bytes] = set()
        self._moves: list[tuple[bytes, bytes]] = []
        self._burst: _Burst | None = None
        self._held_since: float | None = None
        self._stopped = 0.0  # how long locks were held in all, this one not counted
        self._released: float | None = None  # when the last lock went

    def __bool__(self) -> bool:
        return bool(self._ready or self._waiting or self._burst)

    def __len__(self) -> int:
        return len(self._ready) + len(self._waiting) + (len(self._burst.paths) if self._burst else 0)

    @property
    def removed(self) -> frozenset[bytes]:
        """Paths of which a removal was told and that nobody has taken yet."""
        return frozenset(self._removed | self._burst.removed if self._burst else self._removed)

    def forget(self, paths: frozenset[bytes]) -> None:
        """Drop what waits of a few paths: they came and went, and nobody knew them. A burst keeps them."""
        for path in paths:
            self._ready.pop(path, None)
            self._waiting.pop(path, None)
        self._deep -= paths
        self._removed -= paths

    def lone(self, hints: Hints, now: float) -> Batch | None:
        """The batch of saves that wait for nothing and for which nothing waits. None: `offer` the hints."""
        if not hints.ready or hints.waiting or hints.rescan or self._ready or self._waiting or self._burst:
            return None
        if self._count_in(hints, now):
            return None
        moves = tuple(pair for pair in hints.moves if hints.ready.issuperset(pair)) if hints.moves else ()
        return Batch(hints.ready, hints.deep, hints.removed, moves, since=now)

    def recent(self, now: float) -> list[float]:
        """When the paths were named that count for the next save, oldest first."""
        return [named for named in self._named.values() if now - named < self.timing.quiet]

    def passed(self, paths: frozenset[bytes], when: float) -> None:
        """Saves of these paths were taken elsewhere at once."""
        self._count_in(Hints(paths), when)

    def offer(self, hints: Hints, now: float) -> None:
        """Take in what a watcher said. Later words on a path replace earlier ones."""
        if not (hints.ready or hints.waiting or hints.rescan):
            return
        crowded = self._count_in(hints, now) or hints.rescan
        if self._burst is None and crowded:
            self._burst = self._begin_burst(now)
        if self._burst is None:
            self._take_in(hints, now)
        elif self.held and not crowded:
            self._pass_by(self._burst, hints, now)
        else:
            for path in [path for path in self._ready if path in hints.ready or path in hints.waiting]:
                del self._ready[path]
            self._burst.add(hints, now)

    def hold(self, held: bool, now: float) -> None:
        """A version control lock is there (or is gone): keep back removals and bursts."""
        if held and self._held_since is None:
            self._held_since, self._released = now, None
        elif not held and self._held_since is not None:
            self._stopped += now - self._held_since
            self._held_since, self._released = None, now

    @property
    def held(self) -> bool:
        """Whether a lock keeps something back."""
        return self._held_since is not None

    @property
    def holds_burst(self) -> bool:
        """Whether a burst waits that a lock keeps back, or kept back until a moment ago."""
        burst = self._burst
        return burst is not None and (self.held or (self._released is not None and burst.began <= self._released))

    def due(self) -> float | None:
        """When `take` will next have something; None while nothing is pending or all of it is held."""
        times = [min(self._ready.values())] if self._ready else []
        if self._burst and not self.held:
            times.append(self._burst_due(self._burst))
        times += [self._path_due(path, word) for path, word in self._waiting.items() if not self._kept_back(path)]
        return min(times, default=None)

    def take(self, now: float) -> Batch | None:
        """The batch that is ready, or None. Never blocks."""
        if self._burst and not self.held and now >= self._burst_due(self._burst):
            return self.flush()
        ready = set(self._ready)
        for path, word in self._waiting.items():
            if not self._kept_back(path) and now >= self._path_due(path, word):
                ready.add(path)
        return self._part(ready) if ready else None

    def soon(self, now: float) -> Batch | None:
        """What a lock kept back until a moment ago: `take` returns just this when it is due, unless a word comes."""
        burst = self._burst
        if burst is None or self._ready or self._waiting or not self._was_kept_back(burst):
            return None
        return burst.batch() if now < self._burst_due(burst) else None

    def flush(self) -> Batch | None:
        """Everything pending, ready or not, held or not."""
        pending = self._ready.keys() | self._waiting.keys()
        part = self._part(pending) if pending else None
        burst, self._burst = self._burst, None
        if burst is None:
            return part
        if part is not None:
            burst.first = min(burst.first, part.since)
            burst.paths |= part.paths
            burst.deep |= part.deep
            burst.removed |= part.removed
            burst.moves[:0] = part.moves
        return burst.batch()

    def _take_in(self, hints: Hints, now: float) -> None:
        """Words on a few paths, each on its own."""
        self._deep |= hints.deep
        self._removed |= hints.removed
        self._moves += hints.moves
        for path in hints.ready:
            word = self._waiting.pop(path, None)
            self._ready.setdefault(path, word.first if word else now)
        for path in hints.waiting:
            word = self._waiting.get(path)
            if word is None:
                word = _Word(self._ready.pop(path, now), now, self._stopped_until(now))
            self._waiting[path] = word._replace(last=now)

    def _pass_by(self, burst: _Burst, hints: Hints, now: float) -> None:
        """A few words while a lock keeps a burst back: saves go past it, the rest joins it."""
        for path in hints.waiting:
            self._ready.pop(path, None)
        if hints.waiting:
            rest = hints._replace(
                ready=NONE,
                deep=hints.deep - hints.ready,
                removed=hints.removed - hints.ready,
                moves=tuple(pair for pair in hints.moves if hints.ready.isdisjoint(pair)),
            )
            burst.add(rest, now)
        if hints.ready:
            saves = hints._replace(
                waiting=NONE,
                deep=(hints.deep | (burst.deep & hints.ready)) - hints.waiting,
                removed=(hints.removed | (burst.removed & hints.ready)) - hints.waiting,
                moves=(),
            )
            burst.paths -= hints.ready
            burst.deep -= hints.ready
            burst.removed -= hints.ready
            self._take_in(saves, now)

    def _part(self, paths: set[bytes]) -> Batch:
        """Hand out these of the paths that stand alone, with what was said of them, and forget it."""
        since = inf
        for path in paths:
            first = self._ready.pop(path, inf)
            if word := self._waiting.pop(path, None):
                first = min(first, word.first)
            since = min(since, first)
        if not (self._deep or self._removed or self._moves):
            return Batch(frozenset(paths), since=since)
        rest = bool(self._ready or self._waiting)
        batch = Batch(
            frozenset(paths),
            frozenset(self._deep & paths if rest else self._deep),
            frozenset(self._removed & paths if rest else self._removed),
            tuple(pair for pair in self._moves if paths.issuperset(pair)),
            since=since,
        )
        self._deep -= batch.deep
        self._removed -= batch.removed
        self._moves = [pair for pair in self._moves if paths.isdisjoint(pair)]
        return batch

    def _count_in(self, hints: Hints, now: float) -> bool:
        """Remember these words; whether the last `quiet` seconds named more than a few paths.

        It is enough to remember the few that were named last: the oldest of them answers.
        """
        enough = self.timing.few + 1
        for path in islice(chain(hints.ready, hints.waiting), enough):
            self._named.pop(path, None)
            self._named[path] = now
        while len(self._named) > enough:
            del self._named[next(iter(self._named))]
        return len(self._named) == enough and now - next(iter(self._named.values())) < self.timing.quiet

    def _begin_burst(self, now: float) -> _Burst:
        """A burst that takes in all that is pending."""
        stopped = self._stopped_until(now)
        words = [(first, stopped) for first in self._ready.values()]
        words += [(word.first, word.stopped) for word in self._waiting.values()]
        first, stopped = min(words, default=(now, stopped))
        burst = _Burst(now, first, stopped, now, set(self._ready) | set(self._waiting))
        burst.deep, burst.removed, burst.moves = self._deep, self._removed, self._moves
        self._ready, self._waiting = {}, {}
        self._deep, self._removed, self._moves = set(), set(), []
        return burst

    def _stopped_until(self, now: float) -> float:
        return self._stopped + (now - self._held_since if self._held_since is not None else 0.0)

    def _burst_due(self, burst: _Burst) -> float:
        flood = len(burst.paths) > self.timing.many or burst.everything
        quiet = self.timing.flood_quiet if flood else self.timing.quiet
        hold = self.timing.flood_hold if flood else self.timing.hold
        if self._released is not None and self._was_kept_back(burst):
            return self._released + self.timing.released  # what the lock was for is complete
        return min(burst.last + quiet, burst.first + hold + self._stopped - burst.stopped)

    def _was_kept_back(self, burst: _Burst) -> bool:
        """Whether a lock kept it back until a moment ago, and its last word came by then."""
        released = self._released
        return released is not None and burst.began <= released and burst.last <= released + self.timing.released

    def _path_due(self, path: bytes, word: _Word) -> float:
        if self._released is not None and word.last <= self._released and path in self._removed:
            return self._released + self.timing.released
        stopped = max(0.0, self._stopped - word.stopped)
        return min(word.last + self.timing.quiet, word.first + self.timing.hold + stopped)

    def _kept_back(self, path: bytes) -> bool:
        return self.held and path in self._removed
