"""Plan -> what was done: slice by slice, each with its own intents and outcomes in the journal."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass, field

from syncd.engine.baseline import Baseline
from syncd.kernel.contract import (
    Actions,
    Control,
    Diff,
    Kernel,
    Outcomes,
    PlaceOptions,
    Root,
    Rules,
    Side,
    Status,
    Trouble,
)
from syncd.model.change import Line
from syncd.model.plan import Plan, Verb

SLICE = 2000
MISSES = 10  # entries in a row for which there is no room, after which a target with less than LITTLE counts as full
MOST = 100  # the same where more is free: each of them may have filled it before it failed
LITTLE = 64 << 10  # bytes
NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


@dataclass(slots=True)
class Applied:
    """What all slices of one cycle came to."""

    done: int = 0
    same: int = 0
    puts: int = 0
    removed: int = 0
    written: int = 0  # bytes
    troubles: list[Trouble] = field(default_factory=list)
    busy: list[bytes] = field(default_factory=list)
    again: list[bytes] = field(default_factory=list)  # changed or vanished meanwhile
    kept: list[bytes] = field(default_factory=list)  # directories that still hold something
    aside: list[tuple[bytes, bytes]] = field(default_factory=list)
    dropped: list[bytes] = field(default_factory=list)
    stopped: int = 0  # errno
    cut: bool = False  # cancelled before its end

    def add(self, outcomes: Outcomes) -> None:
        """Add up one slice."""
        self.done += outcomes.done
        self.same += outcomes.same
        self.puts += outcomes.puts
        self.removed += outcomes.removed
        self.written += outcomes.bytes
        if not outcomes.smooth:
            self.troubles += outcomes.troubles
            self.busy += outcomes.paths(Status.BUSY)
            self.again += outcomes.paths(Status.CHANGED) + outcomes.paths(Status.VANISHED)
            self.kept += outcomes.paths(Status.KEPT)
            self.aside += outcomes.aside
            self.dropped += [path for path, _ in outcomes.dropped]


def apply(
    kernel: Kernel,
    roots: tuple[Root, Root],
    rules: Rules,
    baseline: Baseline,
    diff: Diff,
    plan: Plan,
    options: PlaceOptions,
    control: Control,
) -> Applied:
    """Carry out `plan`. Blocks on the disk; raises OSError only when the journal cannot be written.

    A full or read-only target is a fact of the target: what was prepared is dropped, the removals of the whole batch
    are done, and then the rest in small slices, since what a slice replaces makes room when it ends. What finds no room
    even alone is trouble at its path and is passed over; when `MISSES` in a row are, or the target takes nothing for
    another reason, `stopped` says why the batch ended early.
    """
    applied = Applied()

    def place(actions: Actions, start: int, size: int) -> tuple[int, int, bool]:
        """Place one slice; where the next one starts, the errno that stopped it, and whether a cancel cut it short.

        After a cancel it is called until that is so: then directories have the modes they are to have.
        """
        stop = min(start + size, len(actions))
        outcomes = kernel.place(*roots, rules, baseline.base, actions, start, stop, options, control)
        baseline.learn(outcomes)
        applied.add(outcomes)
        return outcomes.next, outcomes.stopped, control.cancelled and outcomes.next < stop

    def slices(actions: Actions) -> tuple[int, int]:
        start, stopped, cut = 0, 0, False
        while start < len(actions) and not (stopped or cut):
            start, stopped, cut = place(actions, start, SLICE)
        return start, stopped

    def squeeze(actions: Actions, start: int) -> tuple[int, int]:
        """The same where room is short."""
        size, cut = 1, False
        misses: list[Trouble] = []
        while start < len(actions) and not cut:
            before = start
            start, stopped, cut = place(actions, start, size)
            if start > before:
                applied.troubles += misses
                misses = []
            if not stopped:
                size = min(size * 2, SLICE)
            elif start == before and size == 1:
                misses.append(Trouble(actions.path(start), stopped, "write", Side.TARGET))
                if stopped not in NO_ROOM or len(misses) >= (MISSES if _is_full(options.staging) else MOST):
                    return start, stopped
                start += 1
            else:
                size = 1
        applied.troubles += misses
        return start, 0

    actions = diff.actions(plan.verbs)
    start, applied.stopped = slices(actions)
    if applied.stopped:
        if options.prepared is not None:
            options.prepared.clear(options.staging)
        slices(diff.actions({Line.GONE: plan.verbs.get(Line.GONE, Verb.LEAVE)}))
        start, applied.stopped = squeeze(actions, start)
    applied.cut = start < len(actions) and control.cancelled
    return applied


def _is_full(fd: int) -> bool:
    about = os.fstatvfs(fd)
    return about.f_bavail * about.f_frsize < LITTLE or (about.f_files > 0 and about.f_favail == 0)
