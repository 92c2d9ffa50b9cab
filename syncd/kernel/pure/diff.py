"""Diff: every path sorted into the lines of the table. Pure: no I/O."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple

import xxhash

from syncd.kernel.pure.files import mirrored
from syncd.kernel.pure.tree import PureBase, PureTree, in_order, parts
from syncd.model.change import Line, Row
from syncd.model.entry import Agreed, Entry, Kind
from syncd.model.path import ancestors, any_above
from syncd.model.plan import Verb


def equal(one: Entry | Agreed | None, other: Entry | Agreed | None) -> bool:
    """Same kind and same content or link text; both missing is equal. Doubt equals nothing."""
    if one is None or other is None:
        return one is other
    if one.kind != other.kind or one.kind == Kind.OTHER:
        return False
    if one.kind == Kind.FILE:
        return one.digest is not None and one.digest == other.digest
    return one.link == other.link


def line_of(base: Agreed | None, source: Entry | None, target: Entry | None) -> Line:
    """The table. A source entry of kind OTHER is given as None."""
    if equal(source, target):
        if base and source and target and equal(source, base) and nothing_to_learn(base, source, target):
            return Line.SAME
        return Line.AGREED
    if equal(target, base):
        return Line.CHANGED if source else Line.GONE
    if equal(source, base):
        if base is None:
            return Line.MADE
        return Line.EDITED if target else Line.LOST
    return Line.CONFLICT


def nothing_to_learn(base: Agreed, source: Entry, target: Entry) -> bool:
    """Whether the baseline knows both fingerprints, the mode and the mtime."""
    if source.seen != base.source or mirrored(source.seen.mode) != base.mode:
        return False
    if base.kind == Kind.DIR:
        return mirrored(target.seen.mode) == base.mode
    return target.seen == base.target and source.seen.mtime_ns == base.mtime_ns


class PureDiff:
    """Every path in scope by its line, and what may be made of it."""

    def __init__(
        self, base: PureBase, source: PureTree, target: PureTree, removed: Collection[bytes], explained: bool
    ) -> None:
        self.lines: dict[Line, list[Row]] = {line: [] for line in Line}
        above_unknown = {above for path in source.unknown | target.unknown for above in ancestors(path)}
        for path in paths_in_scope(base, source, target):
            theirs = source.get(path)
            if theirs and theirs.kind == Kind.OTHER:
                theirs = None
            row = Row(path, base.get(path), theirs, target.get(path))
            if not (source.knows(path) and target.knows(path)):
                self.lines[Line.UNKNOWN].append(row)
            elif row[1:] != (None, None, None):
                line = line_of(*row[1:])
                # Its directory can not be removed, and its rows must not go with that one's.
                holds_unknown = line is Line.GONE and path in above_unknown
                self.lines[Line.UNKNOWN if holds_unknown else line].append(row)
        gone = [row.path for row in self.lines[Line.GONE]]
        self.id = xxhash.xxh3_128(b"".join(path + b"\0" for path in gone)).hexdigest() if gone else ""
        self.unexplained = sum(
            not (explained or any_above(path, removed) or left_a_trace(path, base, source)) for path in gone
        )

    def count(self, line: Line) -> int:
        return len(self.lines[line])

    def counts(self) -> dict[Line, int]:
        return {line: len(rows) for line, rows in self.lines.items()}

    def bytes(self, line: Line) -> int:
        if line is Line.GONE:
            agreed = [row.base for row in self.lines[line]]
            return sum(each.target.size for each in agreed if each and each.kind == Kind.FILE)
        sources = [row.source for row in self.lines[line]]
        return sum(each.seen.size for each in sources if each and each.kind == Kind.FILE)

    def rows(self, line: Line, start: int = 0, stop: int = -1) -> list[Row]:
        if line is Line.SAME:
            return []
        return self.lines[line][start:] if stop < 0 else self.lines[line][start:stop]

    def actions(self, verbs: Mapping[Line, Verb]) -> PureActions:
        chosen = [Action(verbs.get(line, Verb.LEAVE), row) for line, rows in self.lines.items() for row in rows]
        chosen.sort(key=lambda action: parts(action.row.path))
        directories = [action for action in chosen if action.makes_directory]
        removals = [action for action in reversed(chosen) if action.verb is Verb.REMOVE]
        times = [action for action in chosen if action.records_directory]
        rest = [
            action
            for action in chosen
            if action.verb not in (Verb.LEAVE, Verb.REMOVE) and not (action.makes_directory or action.records_directory)
        ]
        return PureActions([*directories, *rest, *removals, *times])


class Action(NamedTuple):
    """One step: what is done to one row."""

    verb: Verb
    row: Row

    @property
    def records_directory(self) -> bool:
        """Its time vouches for what was removed from it, so that comes first."""
        return self.verb is Verb.RECORD and self.row.source is not None and self.row.source.kind == Kind.DIR

    @property
    def makes_directory(self) -> bool:
        source = self.row.source
        return self.verb in (Verb.PUT, Verb.REPLACE) and source is not None and source.kind == Kind.DIR


class PureActions:
    """Ordered steps, and the modes that directories get when the last of them is done."""

    def __init__(self, steps: list[Action]) -> None:
        self.steps = steps
        self.modes: dict[bytes, int] = {}
        self.undone: list[bytes] = []  # removals that did not come about

    def __len__(self) -> int:
        return len(self.steps)

    def path(self, index: int) -> bytes:
        return self.steps[index].row.path


def paths_in_scope(base: PureBase, source: PureTree, target: PureTree) -> list[bytes]:
    """Every path that any side knows or has trouble with, in the scope of `source`, but for the root."""
    found: set[bytes] = set()
    for top, deep in source.scope if source.scope is not None else ((b"", True),):
        found.add(top)
        if deep:
            for side in (base, source, target):
                found.update(path for path, _ in side.rows(top))
    found.update(path for path in source.unknown | target.unknown if source.covers(path))
    return in_order(found - {b""})


def left_a_trace(path: bytes, base: PureBase, source: PureTree) -> bool:
    """Whether the nearest directory above that is still there is the one of the baseline at another time.

    Every real removal leaves that. A directory out of scope, or not in the baseline, says nothing.
    """
    for above in (*ancestors(path), b""):
        if not source.covers(above):
            return False
        entry, agreed = source.get(above), base.get(above)
        if entry and entry.kind == Kind.DIR:
            if agreed is None or agreed.kind != Kind.DIR:
                return False
            return agreed.source.inode == entry.seen.inode and agreed.source.mtime_ns != entry.seen.mtime_ns
    return False
