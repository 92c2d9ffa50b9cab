"""One pass of the line, in one thread, without await.

source ─▶ watch ─▶ settle ─▶ scan ─▶ plan ─▶ guard ─▶ apply ─▶ report
"""

from __future__ import annotations

import select
import time
from collections.abc import Callable

from syncd.engine.apply import apply
from syncd.engine.moves import candidates, rename_moved
from syncd.engine.pair import Pair, Roots
from syncd.engine.plan import POLICIES, plan_mirror
from syncd.engine.report import report, report_halt, report_lone
from syncd.engine.scan import Sight, is_bare, looks, scan
from syncd.engine.shut import open_shut
from syncd.engine.watch import Watch
from syncd.kernel.contract import Diff
from syncd.model.change import Batch, Hints, Line
from syncd.model.plan import Plan
from syncd.model.report import CycleReport, Halt
from syncd.watchers.base import Mirror

Announce = Callable[[Sight, Diff], None]  # told before anything is written; may raise Refused


def cycle(
    pair: Pair,
    batch: Batch,
    *,
    policy: str | None = None,
    unfinished: bool = False,
    patient: bool = False,
    announce: Announce | None = None,
    sight: Sight | None = None,
    watch: Watch | None = None,
    wait: Callable[[float], object] | None = None,
) -> CycleReport:
    """Make the target equal to the source where `batch` says.

    `sight` is what was seen there (`look`) after all that `batch` tells of, if anybody looked. `watch`: have everything watched anew
    before it is looked at, in a batch of everything. `patient` takes also files that somebody holds open, if two reads 30 ms apart agree.
    `wait(seconds)`: give a doubted absence its second look in this cycle, after that time; else it is left to a later one.
    Blocks on the disk. Raises FirstMeeting and what `announce` raises, before anything is written;
    OSError when the journal cannot be written. Whatever happened to single paths is in the report.
    """
    began = time.monotonic()
    number = pair.next_cycle()
    with pair.roots() as opened:
        roots = pair.recognise(opened)
        if isinstance(roots, Halt):
            return report_halt(number, roots, full=batch.everything, took=time.monotonic() - began)
        full = batch.everything or pair.replaced
        if batch.moves and not full:
            rename_moved(pair.kernel, roots, pair.rules, pair.baseline, batch.moves, pair.control)
        if sight is None or full:
            sight = _scan(pair, roots, batch, full=full, watch=watch)
        while sight.target.troubles and open_shut(roots[1], pair.baseline.base, sight):
            sight = _scan(pair, roots, batch, full=full)
        if pair.is_covered_anew():  # while it was looked at: that may have been seen, and must not be learnt
            return CycleReport(number, full, time.monotonic() - began, again=frozenset([b""]))
        diff, plan = _decide(pair, roots, batch, sight, policy, full=full, looked=began)
        while wait is not None and (due := pair.second_look_due) is not None and not pair.control.cancelled:
            wait(due - time.monotonic())
            looked = time.monotonic()
            sight = _scan(pair, roots, batch, full=full)
            diff, plan = _decide(pair, roots, batch, sight, policy, full=full, looked=looked)
        if pair.foreign or pair.emptied:
            plan = plan._replace(unexplained=plan.removals)
        takes = bool(plan.removals or plan.counts[Line.CONFLICT])
        bare = takes and is_bare(roots[0])
        checked = pair.guard.check(plan, began, bare=bare, replaced=pair.replaced, emptied=pair.emptied)
        if isinstance(checked, Halt):
            pair.emptied |= bare
            return report_halt(number, checked, full=full, took=time.monotonic() - began, notes=plan.notes)
        if announce is not None:
            announce(sight, diff)
        pair.meet(diff)
        if (takes or full) and (halt := pair.moved(roots)):
            return report_halt(number, halt, full=full, took=time.monotonic() - began)
        options = pair.options(number, direct=len(sight.target) == 0 and full, unfinished=unfinished, patient=patient)
        applied = apply(pair.kernel, roots, pair.rules, pair.baseline, diff, checked, options, pair.control)
        now = time.monotonic()
        done = report(
            number, sight, checked, applied, full=full, took=now - began,
            lag=now - batch.since if batch.since else None, entries=len(pair.baseline.base),
        )  # fmt: skip
        if done.in_sync:
            pair.learn_root(sight.source.get(b""))
        pair.finished(done, roots, batch)
    return done


def _decide(
    pair: Pair, roots: Roots, batch: Batch, sight: Sight, policy: str | None, *, full: bool, looked: float
) -> tuple[Diff, Plan]:
    """`looked`: when the look began that gave `sight` (monotonic)."""
    diff = pair.diff(sight, roots, batch)
    known, damaged = len(pair.baseline.base), full and not pair.trusted
    plan = plan_mirror(diff, policy or pair.settings.drift, known, pair=pair.settings.name, damaged=damaged)
    return diff, pair.second_look(diff, plan, sight.source, looked)


def look_ahead(pair: Pair, batch: Batch) -> Sight | None:
    """What a cycle of `batch` would see now; it may be given to one that begins soon.

    None where that one has more to do first, or a root fails. Blocks on the disk; raises OSError as `cycle` does.
    """
    if not pair.calm or batch.everything or batch.moves:
        return None
    with pair.roots() as roots:
        if isinstance(roots, Halt) or pair.replaced:
            return None
        return _scan(pair, roots, batch, full=False)


def _scan(pair: Pair, roots: Roots, batch: Batch, *, full: bool, watch: Watch | None = None) -> Sight:
    base, force = pair.baseline.base, pair.lying
    source = watch.scan(pair.kernel, roots[0], pair.rules, base, pair.control, force) if watch is not None else None
    return scan(
        pair.kernel, roots, pair.rules, base, None if full else looks(batch), pair.control,
        force=force, trusted=pair.trusted or not full, source=source,
    )  # fmt: skip


def express(pair: Pair, batch: Batch, *, patient: bool = False) -> CycleReport | None:
    """A cycle of a lone save: its stages from scan to apply are one call of the kernel (docs/decisions/0006).

    None, and nothing was touched, where there is anything to decide: then it takes `cycle`. Raises as that does.
    """
    began = time.monotonic()
    if not pair.calm or batch.everything or batch.removed or len(batch.paths) > pair.settings.timing.few:
        return None
    if batch.moves and candidates(pair.baseline.base, batch.moves):
        return None
    options = pair.options(pair.number + 1, direct=False, unfinished=False, patient=patient)
    outcomes = pair.express(batch, POLICIES[pair.settings.drift], options)
    if outcomes is None:
        return None
    pair.baseline.learn(outcomes)
    if outcomes.stopped:
        return None  # the whole line makes room first and tries again
    number = pair.next_cycle()
    pair.finished_lone(1)
    now = time.monotonic()
    lag = now - batch.since if batch.since else None
    return report_lone(number, outcomes, now - began, lag, len(pair.baseline.base))


def mirror_lone(
    pair: Pair, mirror: Mirror, epoll: select.epoll, recent: list[float], due: float
) -> tuple[list[tuple[CycleReport, Batch]], Hints, list[int]] | None:
    """Wait in `epoll`, and let the watcher that listens there mirror lone saves; see `Watcher.mirror`.

    The reports with the batches, what it did nothing about, and descriptors that are ready. None, at once: the pair is
    not calm.
    """
    lone = pair.lone(POLICIES[pair.settings.drift], recent, due)
    if lone is None:
        return None
    pair.baseline.base, saves, hints, ready = mirror(epoll, pair.baseline.base, lone)
    entries = len(pair.baseline.base)
    done = []
    for paths, outcomes, since, until in saves:
        took = until - since
        done.append((report_lone(pair.next_cycle(), outcomes, took, took, entries), Batch(paths, since=since)))
    if saves:
        pair.finished_lone(len(saves))
    return done, hints, ready
