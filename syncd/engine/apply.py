"""Plan -> what was done: slice by slice, each with its own intents and outcomes in the journal."""

from __future__ import annotations

from dataclasses import dataclass, field

from syncd.engine.baseline import Baseline
from syncd.kernel.contract import Actions, Control, Diff, Kernel, Outcomes, PlaceOptions, Root, Rules, Status, Trouble
from syncd.model.change import Line
from syncd.model.plan import Plan, Verb

SLICE = 2000


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
    are done, the rest is tried again while that comes further, and then `stopped` says why the batch ended early.
    """
    applied = Applied()

    def slices(actions: Actions, start: int) -> int:
        """Place actions from `start` on; return where it ended."""
        total = len(actions)
        while start < total and not control.cancelled:
            stop = min(start + SLICE, total)
            outcomes = kernel.place(*roots, rules, baseline.base, actions, start, stop, options, control)
            baseline.learn(outcomes)
            applied.add(outcomes)
            start = outcomes.next
            if outcomes.stopped:
                applied.stopped = outcomes.stopped
                break
        applied.cut = applied.cut or (start < total and control.cancelled)
        return start

    actions = diff.actions(plan.verbs)
    start = slices(actions, 0)
    if applied.stopped:
        if options.prepared is not None:
            options.prepared.clear(options.staging)
        slices(diff.actions({Line.GONE: plan.verbs.get(Line.GONE, Verb.LEAVE)}), 0)
    while applied.stopped:  # what a slice replaced has made room when it ended
        applied.stopped = 0
        before, start = start, slices(actions, start)
        if start == before:
            break
    return applied
