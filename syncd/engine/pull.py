"""The container's changes -> the source: the same kernel and the same checks with the roots swapped.

Only for paths that a person named. What the source held there is set aside beside it, never destroyed.

    look       both ways: did the source change since both agreed, and what is to come back
    spare      what could not be read or cannot be mirrored counts as an overlay from then on: look again without it
    refuse     where a person has to decide (--force)
    place      in slices; a cancel ends between two files
"""

from __future__ import annotations

import errno
import os
import tempfile
import time
from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from syncd.engine.foretell import holds_excluded
from syncd.engine.ignore import compile_rules
from syncd.engine.plan import is_cleared
from syncd.engine.report import problem
from syncd.engine.scan import Sight, is_bare, scan
from syncd.engine.staging import hold_staging, sweep
from syncd.errors import Refused
from syncd.kernel.contract import (
    Base,
    Control,
    Diff,
    Kernel,
    Look,
    Outcomes,
    PlaceOptions,
    Root,
    Rules,
    Side,
    Status,
    Trouble,
)
from syncd.model.change import Line, Row
from syncd.model.entry import Entry, Kind
from syncd.model.path import ancestors, any_above, display, is_within, name
from syncd.model.plan import Verb
from syncd.model.report import Problem
from syncd.model.settings import Settings
from syncd.watchers.walk import join, unreadable

SLICE = 2000
LOOKS = 5  # looks after which trees in which ever new places cannot be read are left alone
NAMED = 10  # paths named in one message
VERBS = {Line.CHANGED: Verb.REPLACE, Line.CONFLICT: Verb.REPLACE, Line.MADE: Verb.REPLACE, Line.AGREED: Verb.LEAVE}

LEFT = {
    Status.BUSY: "somebody is writing it in the target",
    Status.CHANGED: "it changed in the source meanwhile",
    Status.VANISHED: "it changed in the target meanwhile",
    Status.KEPT: "the directory still holds what is not mirrored",
}
SPECIAL = "holds a FIFO, socket or device there"


class Pulled(NamedTuple):
    """What came back: `paths`, of which the container had removed `removed`; what did not, and why, in `problems`.

    No path is in both. `aside` tells where each is kept, `notes` why nothing came of a path that was named;
    `interrupted`: not all of it had its turn.
    """

    paths: tuple[bytes, ...]
    removed: frozenset[bytes]
    aside: tuple[tuple[bytes, bytes], ...]
    problems: tuple[tuple[bytes, str], ...]
    notes: tuple[tuple[bytes, str], ...]
    interrupted: bool


def pull(
    kernel: Kernel,
    settings: Settings,
    state: Path,
    base: Base,
    rules: Rules,
    roots: tuple[Root, Root],
    paths: Sequence[bytes],
    control: Control,
    *,
    force: bool = False,
    dry_run: bool = False,
) -> Pulled:
    """Bring what the target holds at `paths` (and below) into the source.

    `target` must be the directory that `base` is of: what another one lacks, nobody removed. Refused when the source
    changed there since both sides agreed, or when the target is empty or was cleared, unless `force`. What could not
    be read on either side is a problem, and nothing at, below or above it is touched. A cancel ends it in order.
    Blocks on the disk.
    """
    task = _Pull(kernel, settings, base, rules, roots, control)
    seen = task.look(paths)
    if not task.interrupted:
        if not force:
            task.refuse(seen)
        if dry_run:
            task.foretell(seen)
        elif seen.rows:
            task.write(seen, state, force)
    return task.pulled(paths)


class Seen(NamedTuple):
    """What a look showed: what differs, what of it is to come back, and where the source changed since both agreed."""

    diff: Diff
    rows: list[Row]  # the target's entry is `source` here: the kernel is given the roots the other way round
    changed: list[bytes]
    special: list[bytes]  # where the source holds what cannot be mirrored and the target something else


class _Pull:
    """One pull under way."""

    def __init__(
        self, kernel: Kernel, settings: Settings, base: Base, rules: Rules, roots: tuple[Root, Root], control: Control
    ) -> None:
        self.kernel = kernel
        self.settings = settings
        self.base = base
        self.empty = kernel.empty_base()
        self.given = self.rules = rules
        self.source, self.target = roots
        self.control = control
        self.spared: set[bytes] = set()
        self.rows: dict[bytes, Row] = {}
        self.done: set[bytes] = set()
        self.aside: list[tuple[bytes, bytes]] = []
        self.problems: dict[bytes, str] = {}
        self.stopped = 0
        self.interrupted = False

    # --- looking ---------------------------------------------------------------------------------

    def look(self, paths: Iterable[bytes]) -> Seen:
        """What is to come back at `paths`. What must be left alone is no part of it."""
        paths = sorted(set(paths))
        looks = [Look(path, True) for path in paths]
        for _ in range(LOOKS):
            roots = self.source, self.target
            ahead = scan(self.kernel, roots, self.rules, self.base, looks, self.control, exact=True)
            back = scan(self.kernel, roots[::-1], self.rules, self.empty, looks, self.control, exact=True)
            seen = self._seen(ahead, back, paths)
            spare = self._unknown(ahead, back) | self._special(back) | self._unread(seen)
            self.interrupted = self.control.cancelled
            if self.interrupted or spare <= self.spared:
                return seen
            self.spared |= spare
            overlays = *self.settings.overlays, *sorted(self.spared)
            self.rules = compile_rules(self.kernel, self.settings._replace(overlays=overlays))
        raise Refused("what can be read changes from look to look; nothing was pulled. Try again when it is quiet")

    def _unknown(self, ahead: Sight, back: Sight) -> set[bytes]:
        """Where either look could not read: unknown is not absent, so nothing may be made of it."""
        found = set()
        for sight, swapped in ((ahead, False), (back, True)):
            for trouble in (*sight.source.troubles, *sight.target.troubles):
                if trouble.errno != errno.ECANCELED:
                    self.problems.setdefault(trouble.path, _told(trouble, swapped=swapped))
                    found.add(trouble.path)
        return found

    def _special(self, back: Sight) -> set[bytes]:
        """FIFOs and the like, which are not mirrored: nobody removed what the target lacks, none can be brought."""
        theirs, ours = back
        found = {path for path in ours.others if not _is_replaced(path, back)}
        for path in theirs.others:
            if (held := ours.get(path)) and held.kind is not Kind.OTHER:
                self.problems.setdefault(path, f"{display(path)}: the target {SPECIAL}")
                found.add(path)
        return found

    def _unread(self, seen: Seen) -> set[bytes]:
        """Files that the target holds in place of a directory, and that cannot be read: all of that one stays."""
        found = set()
        for row in seen.rows:
            if _is_directory(row.target) and (trouble := self._unreadable(row)):
                self.problems.setdefault(row.path, _told(trouble, swapped=True))
                found.add(row.path)
        return found

    def _unreadable(self, row: Row) -> Trouble | None:
        if row.source and row.source.kind is Kind.FILE and (failed := unreadable(self.target.fd, [row.path])):
            return Trouble(row.path, failed[row.path], "read", Side.SOURCE)
        return None

    def _seen(self, ahead: Sight, back: Sight, paths: Sequence[bytes]) -> Seen:
        diff = self.kernel.diff(self.empty, back.source, back.target)
        rows = [row for line, verb in VERBS.items() if verb is not Verb.LEAVE for row in diff.rows(line)]
        agreed = self.kernel.diff(self.base, ahead.source, ahead.target)
        changed = [
            row.path
            for line in (Line.CHANGED, Line.CONFLICT, Line.GONE)
            for row in agreed.rows(line)
            if any(is_within(row.path, path) or _is_in_the_way(row, path) for path in paths)
        ]
        return Seen(diff, rows, changed, list(back.target.others))

    def refuse(self, seen: Seen) -> None:
        """Raise Refused where a person has to decide."""
        if seen.changed:
            raise Refused(
                f"the source changed there, too: {_listed(seen.changed)}; nothing was pulled. "
                "--force sets the source's version aside and goes on"
            )
        if seen.special:
            raise Refused(
                f"the source {SPECIAL}: {_listed(seen.special)}; nothing was pulled. --force sets it aside and goes on"
            )
        removed = sum(not row.source for row in seen.rows)
        if removed and (why := self._cleared()):
            raise Refused(
                f"{why}: that would remove {removed} entries from the source. Nothing was pulled; "
                "--force sets them aside and goes on"
            )

    def _cleared(self) -> str:
        """Whether the whole target, whatever was named, was cleared: nobody removed its entries one by one."""
        if is_bare(self.target):
            return "the target is empty"
        paths = [path for path, _ in self.base.rows()]
        states = zip(*(self.kernel.stat_many(root, paths) for root in (self.source, self.target)), strict=True)
        lost = sum(target is None and source is not None for source, target in states)
        return (
            f"the target was cleared (it lost {lost} of {len(paths)} entries)" if is_cleared(lost, len(paths)) else ""
        )

    # --- foretelling -----------------------------------------------------------------------------

    def foretell(self, seen: Seen) -> None:
        """What `write` would come to, as far as that can be known without writing."""
        self.rows = {row.path: row for row in seen.rows}
        left_out = (*self.settings.overlays, *self.spared)
        replaced = {row.path for row in seen.rows if row.source and _is_directory(row.target)}  # as a whole
        removed = [
            row.path
            for row in seen.rows
            if not row.source and _is_directory(row.target) and not any_above(row.path, replaced)
        ]
        kept = {path for path in removed if holds_excluded(self.source.fd, path, self.rules)}
        for row in seen.rows:
            trouble = self._unreadable(row)
            if row.source and _is_directory(row.target) and any(is_within(path, row.path) for path in left_out):
                trouble = Trouble(row.path, errno.EBUSY, "overlay", Side.TARGET)
            if trouble:
                self.problems[row.path] = _told(trouble, swapped=True)
            elif row.path in kept:
                self.problems[row.path] = f"{display(row.path)}: {LEFT[Status.KEPT]}"
        self.done = set(self.rows) - set(self.problems)

    # --- writing ---------------------------------------------------------------------------------

    def write(self, seen: Seen, state: Path, force: bool) -> None:
        """Place what was seen. What a hard link to an entry placed before touched is looked at once more."""
        where = Path(os.fsdecode(self.settings.source))
        with closing(hold_staging(state / "pull", where, self.source.fd, ".pull")) as staging:
            aside = staging.aside(0, time.time())
            left = sweep(staging, lambda *_: False, aside + b"-unfinished")  # of one that was killed
            try:
                self.aside += [(name(kept), kept) for kept in left]
                with tempfile.TemporaryFile(dir=state) as journal:
                    os.set_blocking(journal.fileno(), True)
                    self._passes(seen, PlaceOptions(staging.fd, journal.fileno(), aside, "replace"), force)
            finally:
                top = os.fsencode(staging.where)
                self.aside = [(path, join(top, kept)) for path, kept in self.aside]

    def _passes(self, seen: Seen, options: PlaceOptions, force: bool) -> None:
        """Each pass but the first takes at least one path less than the one before, so they come to an end."""
        most = len(seen.rows) + 1
        while True:
            again = self._pass(seen, options)
            if not again or len(again) >= most:
                return
            most = len(again)
            try:  # below a directory that the target lacks there is nothing to look at
                seen = self.look(map(self._topmost_missing, again))
            except Refused:
                return  # what came back so far has to be told
            if self.interrupted or (seen.changed and not force):
                return

    def _pass(self, seen: Seen, options: PlaceOptions) -> list[bytes]:
        """Bring what was seen; the paths that are worth another look."""
        self.rows |= {row.path: row for row in seen.rows}
        changed = self._place(seen.diff, options)
        return [] if self.stopped or self.control.cancelled else self._only_touched(changed)

    def _only_touched(self, changed: Sequence[bytes]) -> list[bytes]:
        """Paths that changed meanwhile in nothing but the ctime: a hard link of theirs was set aside just now."""
        states = self.kernel.stat_many(self.source, changed)
        held = [(path, self.rows[path].target, now) for path, now in zip(changed, states, strict=True)]
        return [path for path, old, now in held if old and isinstance(now, Entry) and _alike(old, now)]

    def _place(self, diff: Diff, options: PlaceOptions) -> list[bytes]:
        """Carry out what the diff asks for; the paths that were not as it believed."""
        actions = diff.actions(VERBS)
        changed: list[bytes] = []
        start = 0
        while start < len(actions):
            stop = min(start + SLICE, len(actions))
            done = self.kernel.place(
                self.target, self.source, self.rules, self.empty, actions, start, stop, options, self.control
            )
            self._learn(done)
            changed += done.paths(Status.CHANGED)
            start, self.stopped = done.next, done.stopped
            if start < stop or self.stopped:  # cancelled or full
                break
        self.interrupted = self.control.cancelled and start < len(actions)
        return changed

    def _learn(self, done: Outcomes) -> None:
        self.aside += done.aside
        self.done.update(done.paths(Status.DONE), done.paths(Status.SAME))
        self.problems |= {trouble.path: _told(trouble, swapped=True) for trouble in done.troubles}
        for status, why in LEFT.items():
            self.problems |= {path: f"{display(path)}: {why}" for path in done.paths(status)}

    # --- telling ---------------------------------------------------------------------------------

    def pulled(self, named: Sequence[bytes]) -> Pulled:
        """All that there is to tell of it."""
        if self.stopped:
            for path in self.rows.keys() - self.done - self.problems.keys():
                self.problems[path] = str(Problem(path, self.stopped, "write"))
        paths = tuple(path for path in self.rows if path in self.done)
        problems = tuple((path, why) for path, why in self.problems.items() if path not in self.done)
        removed = frozenset(path for path in paths if not self.rows[path].source)
        told = (*paths, *self.problems, *(path for path, _ in self.aside))
        silent = [path for path in dict.fromkeys(named) if not any(is_within(each, path) for each in told)]
        notes = () if self.interrupted else tuple((path, self._why_nothing(path)) for path in silent)
        return Pulled(paths, removed, tuple(self.aside), problems, notes, self.interrupted)

    def _why_nothing(self, path: bytes) -> str:
        """Why nothing came of a path that was named, if there was no problem below or at it."""
        ours, theirs = (self.kernel.stat_many(root, [path])[0] for root in (self.source, self.target))
        is_dir = any(isinstance(state, Entry) and state.kind is Kind.DIR for state in (ours, theirs))
        above = next((each for each in self.problems if is_within(path, each)), None)
        if above is not None:
            return f"see the problem at {display(above)}"
        if self.given.excluded(path, is_dir) and (verdict := self.given.explain(path, is_dir)):
            if verdict.source == "overlay":
                return f"the overlay {display(verdict.path)} is never touched"
            return f"a rule leaves it out ({verdict.source}:{verdict.line}: {display(verdict.pattern)})"
        if ours is None and theirs is None:
            return "it is on neither side"
        for side, state in (("target", theirs), ("source", ours)):
            if isinstance(state, Entry) and state.kind is Kind.OTHER:
                return f"the {side} {SPECIAL}, which is not mirrored"
        above_states = zip(ancestors(path), self.kernel.stat_many(self.target, [*ancestors(path)]), strict=True)
        for place, state in above_states if theirs is None else ():
            if isinstance(state, Entry) and state.kind is not Kind.DIR:
                return f"the target holds something else than a directory at {display(place)}: name that"
        if theirs is None and (gone := self._topmost_missing(path)) != path:
            return f"the target lacks {display(gone)}, which holds it: name that"
        return "both sides hold the same"

    def _topmost_missing(self, path: bytes) -> bytes:
        """The highest of `path` and the directories above it that the target lacks, else `path`."""
        above = [path, *ancestors(path)]
        states = self.kernel.stat_many(self.target, above)
        return [path, *(each for each, state in zip(above, states, strict=True) if state is None)][-1]


def _is_replaced(path: bytes, back: Sight) -> bool:
    """Whether the target holds something else at `path`, or no directory above it."""
    if (held := back.source.get(path)) is not None:
        return held.kind is not Kind.OTHER
    return any((held := back.source.get(above)) and held.kind is not Kind.DIR for above in ancestors(path))


def _is_in_the_way(row: Row, path: bytes) -> bool:
    """Whether the source holds, above `path`, something that would have to go for it."""
    return row.source is not None and row.source.kind is not Kind.DIR and is_within(path, row.path)


def _is_directory(entry: Entry | None) -> bool:
    return entry is not None and entry.kind is Kind.DIR


def _alike(old: Entry, now: Entry) -> bool:
    return old.kind is now.kind and old.seen._replace(ctime_ns=0) == now.seen._replace(ctime_ns=0)


def _listed(paths: Sequence[bytes]) -> str:
    return ", ".join(display(path) for path in paths[:NAMED])


def _told(trouble: Trouble, *, swapped: bool) -> str:
    """Trouble as a person reads it. `swapped`: the kernel was given the roots the other way round."""
    told = problem(trouble)
    if swapped:
        told = told._replace(side="source" if told.side == "target" else "target")
    if (told.op, told.errno) == ("aside", errno.EXDEV):
        where = display(told.path)
        return f"{where}: it lies on another mount than the {told.side}, so it cannot be set aside; copy it by hand"
    if (told.op, told.errno) == ("overlay", errno.EBUSY):
        return (
            f"{display(told.path)}: the {told.side}'s directory holds what is never moved (an overlay, or unreadable)"
        )
    return str(told)
