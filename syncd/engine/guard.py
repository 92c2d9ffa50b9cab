"""Plan -> Plan or Halt: rather stop than remove a lot on an error's word. Pure; time is an argument."""

from __future__ import annotations

from collections import deque

from syncd.model.change import Line
from syncd.model.plan import Plan
from syncd.model.report import Halt

WINDOW = 60.0  # seconds over which removals are summed
SHARE = 0.5
COUNT = 100
TENTH = 0.1  # of the entries: a source that was empty and lacks more is still being filled


class Guard:
    """Remembers the unexplained removals of the last minute, and what a person approved."""

    def __init__(self, mode: str = "full") -> None:
        self.mode = mode  # "full" or "roots"
        self.approved = ""
        self._past: deque[tuple[float, int]] = deque()

    def check(
        self, plan: Plan, now: float, *, bare: bool = False, replaced: bool = False, emptied: bool = False
    ) -> Plan | Halt:
        """Let `plan` through, or say why not. A halt remembers nothing: ask again with a new plan."""
        while self._past and now - self._past[0][0] > WINDOW:
            self._past.popleft()
        if plan.id and plan.id == self.approved:
            self.approved = ""
            return plan
        if bare and (plan.removals or plan.counts.get(Line.CONFLICT)):  # a conflict leaves the target, too
            return Halt("the source is empty, the target is not", plan.id, plan.removals)
        if replaced and plan.unexplained:
            return Halt("the source is another directory than before and lacks entries", plan.id, plan.removals)
        if emptied and plan.unexplained > TENTH * plan.known:
            reason = f"the source was empty a moment ago and still lacks {plan.unexplained} of {plan.known} entries"
            return Halt(reason, plan.id, plan.removals)
        if self.mode == "roots" or not plan.unexplained:
            return plan
        past = sum(count for _, count in self._past)
        total = past + plan.unexplained
        if total > COUNT and total > SHARE * (plan.known + past):
            reason = f"{total} of {plan.known + past} entries vanished from the source without a trace of their removal"
            return Halt(reason, plan.id, plan.removals)
        self._past.append((now, plan.unexplained))
        return plan
