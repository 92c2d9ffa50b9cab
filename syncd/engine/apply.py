"""Plan -> what was done: slice by slice, each with its own intents and outcomes in the journal."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from syncd.engine.baseline import Baseline
from syncd.kernel.contract import Actions, Control, Diff, Kernel, Outcomes, PlaceOptions, Root, Rules, Status, Trouble
from syncd.model.change import Line
from syncd.model.plan import Plan, Verb

SLICE = 2000


@dataclass(slots=True)
class Applied:
    """What all slices of one cycle came to."""

    counts: Counter[Status] = field(default_factory=Counter)
    puts: int = 0
    removed: int = 0
    written: int = 0  # bytes
    troubles: list[Trouble] = field(default_factory=list)
    busy: list[bytes] = field(default_factory=list)
    again: list[bytes] = field(default_factory=list)  # changed or vanished meanwhile
    kept: list[bytes] = field(default_factory=list)  # directories that still hold something
    aside: list[tuple[bytes, bytes]] = field(default_factory=list)
    dropped: list[bytes] = field(default_factory=list)
    stopped: int = 0

    def add(self, outcomes: Outcomes) -> None:
        """Add up one slice."""
        self.counts.update(outcomes.counts())
        self.puts += outcomes.puts
        self.removed += outcomes.removed
        self.written += outcomes.bytes
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

    A full or read-only target is a fact of the target: the removals of the whole batch are done,
    the rest is tried once more, and then `stopped` says why the batch ended early.
    """
    applied = Applied()
    run = _Run(kernel, roots, rules, baseline, options, control, applied)
    actions = diff.actions(plan.verbs)
    start = run.slices(actions, 0)
    if applied.stopped:
        run.slices(diff.actions({Line.GONE: plan.verbs.get(Line.GONE, Verb.LEAVE)}), 0)
        applied.stopped = 0
        run.slices(actions, start)
    return applied


@dataclass(slots=True)
class _Run:
    kernel: Kernel
    roots: tuple[Root, Root]
    rules: Rules
    baseline: Baseline
    options: PlaceOptions
    control: Control
    applied: Applied

    def slices(self, actions: Actions, start: int) -> int:
        """Place actions from `start` on; return where it ended."""
        total = len(actions)
        while start < total and not self.control.cancelled:
            outcomes = self._place(actions, start, min(start + SLICE, total))
            self.baseline.learn(outcomes)
            self.applied.add(outcomes)
            start = outcomes.next
            if outcomes.stopped:
                self.applied.stopped = outcomes.stopped
                break
        return start

    def _place(self, actions: Actions, start: int, stop: int) -> Outcomes:
        source, target = self.roots
        return self.kernel.place(
            source, target, self.rules, self.baseline.base, actions, start, stop, self.options, self.control
        )
