"""The container's changes -> the source: the same kernel and the same checks with the roots swapped.

Only for paths that a person named. What the source held there is set aside beside it, never destroyed.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from syncd.engine.report import problem
from syncd.engine.scan import is_bare, scan
from syncd.engine.staging import open_staging, sweep
from syncd.errors import Refused
from syncd.kernel.contract import Base, Diff, Kernel, Look, PlaceOptions, Root, Rules, Status
from syncd.model.change import Line
from syncd.model.entry import Kind
from syncd.model.path import display, is_within
from syncd.model.plan import Verb
from syncd.model.report import Problem
from syncd.model.settings import Settings
from syncd.system import flocks

SLICE = 2000
VERBS = {Line.CHANGED: Verb.REPLACE, Line.CONFLICT: Verb.REPLACE, Line.MADE: Verb.REPLACE, Line.AGREED: Verb.LEAVE}


LEFT = {
    Status.BUSY: "somebody is writing it in the target",
    Status.CHANGED: "it changed in the source meanwhile",
    Status.VANISHED: "it changed in the target meanwhile",
    Status.KEPT: "the directory still holds what is not mirrored",
}


class Pulled(NamedTuple):
    """What came back: `paths`, of which the container had removed `removed`; what did not, and why, in `problems`."""

    paths: tuple[bytes, ...]
    removed: frozenset[bytes]
    aside: tuple[tuple[bytes, str], ...]
    problems: tuple[tuple[bytes, str], ...]


def pull(
    kernel: Kernel,
    settings: Settings,
    state: Path,
    base: Base,
    rules: Rules,
    roots: tuple[Root, Root],
    paths: Sequence[bytes],
    *,
    force: bool = False,
    dry_run: bool = False,
) -> Pulled:
    """Bring what the target holds at `paths` (and below) into the source.

    `target` must be the directory that `base` is of: what another one lacks, nobody removed. Refused when the source
    changed there since both sides agreed, or when the target is empty, unless `force`. Blocks on the disk.
    """
    source, target = roots
    control = kernel.control()
    looks = [Look(path, True) for path in sorted(set(paths))]
    ahead = scan(kernel, roots, rules, base, looks, control, exact=True)
    changed = [
        row.path
        for line in (Line.CHANGED, Line.CONFLICT, Line.GONE)
        for row in kernel.diff(base, ahead.source, ahead.target).rows(line)
        if any(is_within(row.path, path) for path in paths)
    ]
    if changed and not force:
        raise Refused(
            f"the source changed there, too: {', '.join(display(path) for path in changed[:10])}; nothing was pulled. "
            "--force sets the source's version aside and goes on"
        )

    def compare(looks: Sequence[Look]) -> Diff:
        back = scan(kernel, (target, source), rules, kernel.empty_base(), looks, control, exact=True)
        return kernel.diff(kernel.empty_base(), back.source, back.target)

    diff = compare(looks)
    rows = [row for line in VERBS if VERBS[line] is not Verb.LEAVE for row in diff.rows(line)]
    special = [row.path for row in rows if row.source and row.target and row.target.kind is Kind.OTHER]
    if special and not force:
        raise Refused(
            f"the source holds a FIFO, socket or device there: {', '.join(display(path) for path in special[:10])}; "
            "nothing was pulled. --force sets it aside and goes on"
        )
    wanted = [row.path for row in rows if row.source or not row.target or row.target.kind is not Kind.OTHER]
    removed = frozenset(row.path for row in rows if not row.source) & frozenset(wanted)
    if removed and not force and is_bare(target):
        raise Refused(
            f"the target is empty: that would remove {len(removed)} entries from the source. Nothing was pulled; "
            "--force sets them aside and goes on"
        )
    if wanted and len(wanted) < len(rows):  # sockets and the like are not mirrored: nobody removed them
        diff = compare([Look(path, False) for path in wanted])
    unknown = [problem(trouble) for tree in ahead for trouble in tree.troubles]
    problems = [(each.path, str(each)) for each in unknown]
    if dry_run or not wanted:
        return Pulled(tuple(wanted), removed, (), tuple(problems))
    staging = open_staging(state / "pull", Path(os.fsdecode(settings.source)), source.fd)
    aside = []
    pulled: set[bytes] = set()
    stopped = 0
    try:
        if not flocks.take(staging.fd):
            raise Refused("another pull into this source is under way; wait for its end")
        left = sweep(staging, lambda *_: False, staging.aside(0, time.time()) + b"-unfinished")
        aside += [(os.path.basename(kept), os.fsdecode(kept)) for kept in left]  # of one that was killed
        with tempfile.TemporaryFile(dir=state) as journal:
            os.set_blocking(journal.fileno(), True)
            options = PlaceOptions(staging.fd, journal.fileno(), staging.aside(0, time.time()), "replace")
            actions = diff.actions(VERBS)
            start = 0
            while start < len(actions):
                stop = min(start + SLICE, len(actions))
                done = kernel.place(target, source, rules, kernel.empty_base(), actions, start, stop, options, control)
                aside += [(path, kept.decode("utf-8", "backslashreplace")) for path, kept in done.aside]
                pulled.update(done.paths(Status.DONE), done.paths(Status.SAME))
                problems += [(trouble.path, str(_swapped(problem(trouble)))) for trouble in done.troubles]
                problems += [
                    (path, f"{display(path)}: {why}") for each, why in LEFT.items() for path in done.paths(each)
                ]
                if stopped := done.stopped:
                    break
                start = done.next
    finally:
        staging.close()
    if stopped:
        told = pulled.union(path for path, _ in problems)
        problems += [(path, str(Problem(path, stopped, "write"))) for path in wanted if path not in told]
    aside = [(path, f"{staging.where}/{kept}") for path, kept in aside]
    return Pulled(tuple(path for path in wanted if path in pulled), removed, tuple(aside), tuple(problems))


def _swapped(problem: Problem) -> Problem:
    """The kernel was given the roots the other way round."""
    return problem._replace(side="source" if problem.side == "target" else "target")
