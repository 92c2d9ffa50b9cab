"""Words about change: what a watcher says, what settled, how two sides differ."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

from syncd.model.entry import Agreed, Entry

NONE: frozenset[bytes] = frozenset()


class Hints(NamedTuple):
    """Unproved words that paths of the source may differ, as one read of a watcher gave them.

    `ready` and `waiting` are disjoint: a path stands where the last word on it put it.
    Sets, so that thousands merge without a Python step per path.
    """

    ready: frozenset[bytes] = NONE  # closed after writing, or moved in
    waiting: frozenset[bytes] = NONE  # anything else: removed, moved out, changed, made
    deep: frozenset[bytes] = NONE  # directories to be walked whole (part of the above)
    removed: frozenset[bytes] = NONE  # a removal or a move out was seen (may be there again)
    moves: tuple[tuple[bytes, bytes], ...] = ()  # (old, new) pairs of one cookie
    locks: bool = False  # a version control lock came or went: look at them
    rescan: bool = False  # track was lost: look at everything
    gone: frozenset[bytes] = NONE  # of those removed, some of which that was the last word

    def __bool__(self) -> bool:
        return bool(self.ready or self.waiting or self.locks or self.rescan)


class Batch(NamedTuple):
    """Hints that settled together: the paths that one cycle looks at.

    `everything` overrides `paths`. `since` is the monotonic time of the first word, in seconds.
    """

    paths: frozenset[bytes] = NONE
    deep: frozenset[bytes] = NONE
    removed: frozenset[bytes] = NONE
    moves: tuple[tuple[bytes, bytes], ...] = ()
    everything: bool = False
    since: float = 0.0


class Line(StrEnum):
    """The lines of the table (docs/design/overview.md) into which `diff` sorts every path.

    S, T, B: source, target, baseline. Equal means same kind and same content or link text.
    """

    SAME = "same"  # nothing to do, nothing to learn (counted only)
    AGREED = "agreed"  # S = T, but the baseline or the target's mode or mtime is behind
    CHANGED = "changed"  # T = B, S is new or other
    GONE = "gone"  # T = B, S is missing
    LOST = "lost"  # S = B, T is missing: the container removed it
    EDITED = "edited"  # S = B, T is other: the container edited it
    MADE = "made"  # B and S are missing: the container made it
    CONFLICT = "conflict"  # all three differ
    UNKNOWN = "unknown"  # a side could not be read here or above


CALM = (Line.SAME, Line.AGREED, Line.CHANGED)  # about these a guard has nothing to say
DRIFT = (Line.LOST, Line.EDITED, Line.MADE)


class Row(NamedTuple):
    """One path of a line with what the three sides hold there."""

    path: bytes
    base: Agreed | None
    source: Entry | None
    target: Entry | None
