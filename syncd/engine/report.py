"""What was done -> CycleReport."""

from __future__ import annotations

import errno

from syncd.engine.apply import Applied
from syncd.engine.scan import Sight
from syncd.kernel.contract import Side, Status, Trouble
from syncd.model.change import DRIFT
from syncd.model.plan import Plan, Verb
from syncd.model.report import CycleReport, Halt, Problem


def problem(trouble: Trouble) -> Problem:
    """A kernel's trouble as a person reads it."""
    return Problem(trouble.path, trouble.errno, trouble.op, trouble.side.name.lower())


def report_halt(number: int, halt: Halt, *, full: bool, took: float, notes: tuple[str, ...] = ()) -> CycleReport:
    """A cycle that a guard stopped: nothing was applied."""
    return CycleReport(number, full, took, halt=halt, notes=notes)


def report(
    number: int,
    sight: Sight,
    plan: Plan,
    applied: Applied,
    *,
    full: bool,
    took: float,
    lag: float | None,
    entries: int,
) -> CycleReport:
    """Sum up a cycle that ran."""
    troubles = [*sight.source.troubles, *sight.target.troubles, *applied.troubles]
    moving = frozenset(trouble.path for trouble in troubles if (trouble.errno, trouble.op) == (errno.EAGAIN, "scan"))
    problems = [problem(trouble) for trouble in troubles if trouble.path not in moving]
    if applied.stopped:
        problems.append(Problem(b"", applied.stopped, "write", Side.TARGET.name.lower()))
    problems += [Problem(path, errno.EAGAIN, "busy") for path in applied.busy]
    drift = {str(line): plan.counts[line] for line in DRIFT if plan.verbs[line] is Verb.LEAVE and plan.counts[line]}
    if applied.kept:
        drift["kept"] = len(applied.kept)
    wrote = bool(applied.counts[Status.DONE])
    return CycleReport(
        number,
        full,
        took,
        lag if wrote else None,
        put=applied.puts,
        removed=applied.removed,
        recorded=applied.counts[Status.SAME],
        written=applied.written,
        entries=entries,
        problems=tuple(problems),
        busy=tuple(applied.busy),
        again=moving.union(applied.again),
        drift=drift,
        aside=tuple((path, kept.decode("utf-8", "backslashreplace")) for path, kept in applied.aside),
        others=tuple(sight.source.others),
        dropped=tuple(applied.dropped),
        notes=plan.notes,
        stopped=applied.stopped,
    )
