"""Who tells us that something changed. One protocol, one suite (`tests/conformance/test_watchers.py`).

What a watcher owes is *coverage*: each changed path is covered by a hint on it or on a directory above
it that is `deep`, or by a rescan, within `bound` seconds.
"""

from __future__ import annotations

import select
from collections.abc import Collection, Mapping
from typing import NamedTuple, Protocol

from syncd.kernel.contract import Base, Control, Outcomes, PlaceOptions, Root, Rules, Tree
from syncd.model.change import Hints, Line
from syncd.model.plan import Verb


class Coverage(NamedTuple):
    """What `cover` came to: directories watched in all, those it could not watch, and why (errno)."""

    watched: int
    refused: tuple[bytes, ...] = ()
    errno: int = 0


class Lone(NamedTuple):
    """How `mirror` places lone saves: as `Kernel.express` does with these arguments, one cycle a save.

    `options.aside` is a format of strftime for UTC, followed by "-" and the number of the cycle; the first has
    `number`. A save is lone while at most `few` paths, some of them perhaps the same, were named in the last `quiet`
    seconds; `recent` are the monotonic times at which the last ones were named before.
    """

    paths: tuple[bytes, bytes]
    roots: tuple[tuple[int, int], tuple[int, int]]
    rules: Rules
    verbs: Mapping[Line, Verb]
    options: PlaceOptions
    control: Control
    number: int
    few: int
    quiet: float
    recent: list[float]
    due: float


class Save(NamedTuple):
    """One that was mirrored: what was looked at, and the monotonic times when it was heard and when it was done."""

    paths: frozenset[bytes]
    outcomes: Outcomes
    since: float
    until: float


class Mirrored(NamedTuple):
    """What `mirror` did: the baseline after it, and the saves in order. Words about which nothing was done.

    `ready` are descriptors of the epoll that are ready; it may not say so again.
    """

    base: Base
    saves: list[Save]
    hints: Hints
    ready: list[int]


class Mirror(Protocol):
    """The body of `Watcher.mirror`."""

    def __call__(self, epoll: select.epoll, base: Base, lone: Lone) -> Mirrored:
        """Wait in the epoll that listens to this watcher; mirror lone saves meanwhile, and nothing else.

        To be called while nothing is pending and nothing is wrong. Ends when another descriptor is ready or `control`
        is cancelled; at the end of a save after the monotonic time `due` (a save that ended before waits for it), or
        of which something has to be told; and when a word is to be decided on or cannot be mirrored: it comes back.
        `base` must not be used again.
        """


class WatchedScan(Protocol):
    """The body of `Watcher.scan`."""

    def __call__(self, root: Root, rules: Rules, known: Base, control: Control, force: bool) -> tuple[Coverage, Tree]:
        """`cover`, and `Kernel.scan` of everything in the source: each directory is watched before it is listed.

        Raises as that does; what was watched until then stays so. Cancelled, it drops no watch.
        """


class Watcher(Protocol):
    """Made for one source path; watches nothing until `cover`.

    Between calls it holds no descriptor below the source (that would block the user's umount).
    Names are bytes relative to the source. Not thread-safe, but for `close`.
    """

    name: str
    message: str | None  # what the user has to know of what cannot be watched; changes only in `cover`
    bound: float  # seconds within which a change is told, 0 = at once
    fd: int  # readable while `read` has something to say; for poll(2), not after `listen`

    @property
    def mirror(self) -> Mirror | None:
        """Mirrors lone saves while it waits; None: it cannot, or not now. May change in `cover`."""

    @property
    def scan(self) -> WatchedScan | None:
        """Covers and scans in one walk; None: it cannot."""

    def cover(self, root: Root, rules: Rules) -> Coverage:
        """Watch every directory of the source, but none that is excluded.

        Called before a scan of everything, so that nothing falls between. Teaches `rules` the rule files
        it passes. New `rules` replace the old ones, also for directories that appear later; watches on
        directories that are excluded now are dropped. A directory that appears later is watched, with
        all below it, before the hint on it (deep) is given.
        """

    def watch_locks(self, root: Root, directory: bytes, names: Collection[bytes]) -> None:
        """Watch one directory (not what is below it) for these names only; `Hints.locks` tells of them.

        For version control: the directory may be an ignored one. One that is not there is passed over.
        """

    def listen(self, epoll: select.epoll) -> None:
        """Have an epoll report while `read` has something to say. At most once, before it waits."""

    def attend(self, on: bool) -> None:
        """Whoever listens is about to be busy for long (or no longer): see to it that no word is lost meanwhile."""

    def read(self) -> Hints:
        """All words since the last read, coalesced. Blocks at most as `cover` does.

        Excluded names are left out. Queue overflow, a lost watch, a full channel, the root's own removal
        or unmount become `rescan`.
        """

    def drain(self) -> Hints:
        """Like `read`, and everything that happened before the call is in it. Blocks until that is so."""

    def cancel(self) -> None:
        """Called by any thread: end a look at the source that is under way. Only `close` is called after it."""

    def close(self) -> None:
        """Let go of everything. Twice is harmless."""
