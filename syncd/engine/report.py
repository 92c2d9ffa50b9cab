"""What was done -> CycleReport."""

from __future__ import annotations

import errno

from syncd.engine.apply import Applied
from syncd.engine.scan import Sight
from syncd.kernel.contract import Outcomes, Side, Trouble
from syncd.model.change import DRIFT
from syncd.model.plan import Plan, Verb
from syncd.model.report import CycleReport, Halt, Problem


def problem(trouble: Trouble) -> Problem:
    """A kernel's trouble as a person reads it."""
    return Problem(trouble.path, trouble.errno, trouble.op, trouble.side.name.lower())


def report_halt(number: int, halt: Halt, *, full: bool, took: float, notes: tuple[str, ...] = ()) -> CycleReport:
    """A cycle that a guard stopped: nothing was applied."""
    return CycleReport(number, full, took, halt=halt, notes=notes)


def report_lone(number: int, outcomes: Outcomes, took: float, lag: float | None, entries: int) -> CycleReport:
    """Sum up a lone save."""
    if not outcomes.smooth:
        applied = Applied()
        applied.add(outcomes)
        return report(number, None, None, applied, full=False, took=took, lag=lag, entries=entries)
    lag = lag if outcomes.done else None
    return CycleReport(number, False, took, lag, outcomes.puts, 0, outcomes.same, outcomes.bytes, entries)


def report(
    number: int,
    sight: Sight | None,
    plan: Plan | None,
    applied: Applied,
    *,
    full: bool,
    took: float,
    lag: float | None,
    entries: int,
) -> CycleReport:
    """Sum up a cycle that ran. No sight and no plan: there was nothing in them to be told."""
    moving: frozenset[bytes] = frozenset()
    problems = []
    troubles = (
        applied.troubles if sight is None else [*sight.source.troubles, *sight.target.troubles, *applied.troubles]
    )
    cut = applied.cut
    if troubles:
        cut = cut or any(each.errno == errno.ECANCELED for each in troubles)
        moving = frozenset(each.path for each in troubles if (each.errno, each.op) == (errno.EAGAIN, "scan"))
        told = [each for each in troubles if each.path not in moving and each.errno != errno.ECANCELED]
        problems = [problem(trouble) for trouble in told]
    if applied.stopped:
        problems.append(Problem(b"", applied.stopped, "write", Side.TARGET.name.lower()))
    problems += [Problem(path, errno.EAGAIN, "busy") for path in applied.busy]
    drift = {}
    if plan is not None:
        drift = {str(line): plan.counts[line] for line in DRIFT if plan.counts[line] and plan.verbs[line] is Verb.LEAVE}
    if applied.kept:
        drift["kept"] = len(applied.kept)
    return CycleReport(
        number,
        full,
        took,
        lag if applied.done else None,
        put=applied.puts,
        removed=applied.removed,
        recorded=applied.same,
        written=applied.written,
        entries=entries,
        problems=tuple(problems),
        busy=tuple(applied.busy),
        again=moving.union(applied.again),
        drift=drift,
        aside=tuple((path, kept.decode("utf-8", "backslashreplace")) for path, kept in applied.aside),
        others=() if sight is None else tuple(sight.source.others),
        dropped=tuple(applied.dropped),
        notes=() if plan is None else plan.notes,
        stopped=applied.stopped,
        cut=cut,
    )
