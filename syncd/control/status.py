"""What a running watch says of itself: a frozen view, replaced whole, read by any thread."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Any, NamedTuple

from syncd.model.change import Batch
from syncd.model.path import any_above, display, path_fields
from syncd.model.report import CycleReport, Halt, Problem


class State(StrEnum):
    """Where a pair stands."""

    STARTING = "starting"  # the first full cycle has not ended
    IN_SYNC = "in sync"
    SETTLING = "settling"
    APPLYING = "applying"
    WAITING = "waiting"  # for a busy file or for room on the target
    HALTED = "halted"
    STOPPED = "stopped"


class Status(NamedTuple):
    """One view. `lags` are the last lags in seconds, newest last; they alone go on while it is read."""

    source: bytes
    target: bytes
    kernel: str
    watcher: str
    watcher_reason: str
    bound: float = 0.0
    watched: int = 0
    state: State = State.STARTING
    cycles: int = 0
    last: CycleReport | None = None
    last_at: float = 0.0  # seconds since 1970
    lags: Iterable[float] = ()
    entries: int = 0
    problems: tuple[Problem, ...] = ()
    busy: tuple[bytes, ...] = ()
    drift: Mapping[str, int] = MappingProxyType({})
    drift_at: float = 0.0
    others: int = 0
    halt: Halt | None = None
    held_by: str = ""  # version control lock that keeps something back
    notes: tuple[str, ...] = ()
    pid: int = 0

    def percentile(self, share: float) -> float | None:
        """The lag below which `share` of the last ones lie, in seconds."""
        ordered = sorted(self.lags)  # copied first, in one step of the interpreter
        if not ordered:
            return None
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]

    def as_json(self) -> dict[str, Any]:
        """The stable record of `syncd status --json`."""
        return {
            "schema": 1,
            "source": path_fields(self.source),
            "target": path_fields(self.target),
            "state": str(self.state),
            "in_sync": self.state is State.IN_SYNC and not self.problems,
            "pid": self.pid,
            "kernel": self.kernel,
            "watcher": self.watcher,
            "watcher_reason": self.watcher_reason,
            "bound": self.bound,
            "watched": self.watched,
            "entries": self.entries,
            "cycles": self.cycles,
            "lag_p50": self.percentile(0.5),
            "lag_p95": self.percentile(0.95),
            "problems": [path_fields(p.path) | {"errno": p.errno, "op": p.op, "side": p.side, "text": str(p)}
                         for p in self.problems],
            "busy": [path_fields(p) for p in self.busy],
            "drift": dict(self.drift),
            "drift_at": self.drift_at or None,
            "not_mirrored": self.others,
            "halt": None if self.halt is None else {"reason": self.halt.reason, "id": self.halt.id},
            "held_by": self.held_by,
            "notes": list(self.notes),
            "last": None if self.last is None else self.last.as_json(),
        }  # fmt: skip

    def line(self) -> str:
        """One line for a person."""
        state = "not all in sync" if self.state is State.IN_SYNC and self.problems else f"{self.state}"
        parts = [state, f"{self.entries} entries"]
        if self.last is not None:
            parts.append(f"last batch {self.last.put} put, {self.last.removed} removed")
        if (p50 := self.percentile(0.5)) is not None and (p95 := self.percentile(0.95)) is not None:
            parts.append(f"lag {p50 * 1000:.1f}/{p95 * 1000:.1f} ms")
        if self.problems:
            parts.append(f"{len(self.problems)} problems")
        if self.drift:
            parts.append(f"{sum(self.drift.values())} drifted")
        if self.held_by:
            parts.append(f"held by {self.held_by}")
        if self.halt:
            parts.append(str(self.halt))
        return " · ".join(parts)


def pair_name(source: bytes, target: bytes) -> str:
    """The pair as shown."""
    return f"{display(source)} → {display(target)}"


def merge_problems(old: tuple[Problem, ...], done: CycleReport, batch: Batch) -> tuple[Problem, ...]:
    """Problems after a partial cycle: those of places that it did not look at stay.

    A place that could not be read may be a directory: only a look at all it holds takes that back.
    """
    new = {problem.path for problem in done.problems}
    stay = [
        problem
        for problem in old
        if problem.path not in new
        and problem.op != "busy"
        and (problem.op == "scan" or problem.path not in batch.paths)
        and not any_above(problem.path, batch.deep)
    ]
    return (*stay, *done.problems)
