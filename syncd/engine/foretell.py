"""What a cycle would do at single paths, where that is not what the plan says of their whole line.

`place` finds out when it gets there; who only looks has to know before. Reads directories of the target and opens
files of the source, and changes nothing.
"""

from __future__ import annotations

import os
from typing import NamedTuple

from syncd.kernel.contract import Diff, Root, Rules
from syncd.model.change import Line, Row
from syncd.model.entry import Entry, Kind
from syncd.model.path import ancestors, any_above
from syncd.model.plan import Plan, Verb
from syncd.watchers.walk import join, open_below, unreadable

LINES = (Line.CHANGED, Line.GONE, Line.CONFLICT, Line.LOST, Line.EDITED, Line.MADE)
PUTS = (Verb.PUT, Verb.REPLACE)


class Step(NamedTuple):
    """One row, and the verb of its line."""

    row: Row
    verb: Verb

    @property
    def puts(self) -> bool:
        """Whether something of the source comes there."""
        return self.verb in PUTS and self.row.source is not None


def foretell(diff: Diff, plan: Plan, roots: tuple[Root, Root], rules: Rules) -> dict[bytes, Verb]:
    """The verbs of single paths that differ from those of their lines. Blocks on the disk; raises nothing for a path.

    LEAVE: a file that cannot be read, or a directory that stays for what it holds. REPLACE: it is set aside, also
    along with a directory above. PUT: a directory that is made, since something is put into it.
    """
    steps = [Step(row, plan.verbs.get(line, Verb.LEAVE)) for line in LINES for row in diff.rows(line)]
    unread = [step.row.path for step in steps if step.puts and _is_unread_file(step.row.source)]
    told = dict.fromkeys(unreadable(roots[0].fd, unread), Verb.LEAVE)
    steps = [step for step in steps if step.row.path not in told]
    told |= _on_the_way(steps)
    standing = sorted((step for step in steps if step.row.target), key=lambda step: step.row.path.split(b"/"))
    return told | _leaving(standing, roots[1].fd, rules)


def _is_unread_file(source: Entry | None) -> bool:
    return source is not None and source.kind is Kind.FILE and source.digest is None


def _on_the_way(steps: list[Step]) -> dict[bytes, Verb]:
    """Directories that the container removed, or made another thing of, and below which something is put."""
    ways = {above for step in steps if step.puts for above in ancestors(step.row.path)}
    return {
        row.path: Verb.REPLACE if row.target else Verb.PUT
        for row, verb in steps
        if verb is Verb.LEAVE and row.path in ways and row.source and not _is_dir(row.target)
    }


def _leaving(steps: list[Step], target: int, rules: Rules) -> dict[bytes, Verb]:
    """Directories that stay for what they hold, and what is set aside along with one above it. Steps in path order."""
    told, moved = _set_aside_whole(steps, target, rules)
    along = {step.row.path for step in steps if any(above in moved for above in ancestors(step.row.path))}
    told |= {row.path: Verb.REPLACE for row, verb in steps if row.path in along and verb is Verb.LEAVE}
    gone = {
        row.path
        for row, verb in steps
        if row.source is None and (
            (verb is Verb.REMOVE and not _is_dir(row.target))
            or (verb is Verb.REPLACE and row.path not in told and row.path not in along)
        )
    }  # fmt: skip
    for row, verb in reversed(steps):  # what a directory holds comes before it
        if not _is_dir(row.target) or _is_dir(row.source) or verb not in (Verb.REMOVE, Verb.PUT):
            continue
        if not _holds_others(target, row.path, gone):
            gone.add(row.path)
        else:
            told[row.path] = Verb.REPLACE if verb is Verb.PUT or row.path in along else Verb.LEAVE
    return told


def _set_aside_whole(steps: list[Step], target: int, rules: Rules) -> tuple[dict[bytes, Verb], set[bytes]]:
    """Directories that are moved with all they hold, and before them those that stay for what is excluded there."""
    kept: dict[bytes, Verb] = {}
    moved: set[bytes] = set()
    for step in steps:
        row = step.row
        if not _is_dir(row.target) or _is_dir(row.source) or step.verb not in PUTS or any_above(row.path, moved):
            continue
        if row.source is None and holds_excluded(target, row.path, rules):
            kept[row.path] = Verb.LEAVE
        else:
            moved.add(row.path)
    return kept, moved


def _is_dir(entry: Entry | None) -> bool:
    return entry is not None and entry.kind is Kind.DIR


def _holds_others(top: int, path: bytes, gone: set[bytes]) -> bool:
    """Whether a directory holds a name that is not in `gone`; one that cannot be listed may."""
    listed = _listed(top, path)
    return listed is None or any(below not in gone for below, _ in listed)


def holds_excluded(top: int, path: bytes, rules: Rules) -> bool:
    """Whether it holds, at any depth, an ignored name or an overlay, which are not moved."""
    listed = _listed(top, path)
    return listed is None or any(
        rules.excluded(below, is_dir) or (is_dir and holds_excluded(top, below, rules)) for below, is_dir in listed
    )


def _listed(top: int, path: bytes) -> list[tuple[bytes, bool]] | None:
    """What stands in a directory, and whether it is one itself. None: that cannot be read."""
    try:
        fd = open_below(top, path)
    except OSError:
        return None
    try:
        with os.scandir(fd) as entries:
            return [(join(path, os.fsencode(each.name)), each.is_dir(follow_symlinks=False)) for each in entries]
    except OSError:
        return None
    finally:
        os.close(fd)
