"""What a cycle came to."""

from __future__ import annotations

import errno as codes
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from syncd.model.path import display, path_fields

ADVICE = {
    codes.EACCES: "give the user that runs syncd the right to read and enter it",
    codes.EPERM: "it may be immutable or another user's",
    codes.EBUSY: "it holds an overlay or a mount; move that away first",
    codes.EEXIST: "it is not what was seen there: a rule hides what holds the name, or somebody changes it all the time",
    codes.EAGAIN: "somebody is writing it; it is copied when the writer closes it or pauses",
    codes.EIO: "the filesystem reports damage; see the kernel's log",
    codes.ENODEV: "a filesystem mounted there is gone; mount it again, or if it is gone for good, rename the directory",
    codes.ESTALE: "the file server lost it; mount it again",
    codes.ENOSPC: "free some space on the {side}'s filesystem",
    codes.EDQUOT: "the disk quota is used up",
    codes.EROFS: "the {side}'s filesystem is mounted read-only",
    codes.ENAMETOOLONG: "the {side}'s filesystem has shorter names",
}


class Problem(NamedTuple):
    """Trouble at one path (b"" = the pair itself); everything else went on."""

    path: bytes
    errno: int
    op: str  # "scan", "read", "write", "mount", "torn", "busy", ...
    side: str = "source"

    def __str__(self) -> str:
        code = codes.errorcode.get(self.errno, str(self.errno))
        advice = ADVICE.get(self.errno, "").format(side=self.side)
        where = display(self.path) or "the whole pair"
        return f"{where}: {self.op} failed on the {self.side} ({code})" + (f"; {advice}" if advice else "")


class Halt(NamedTuple):
    """A guard stopped the pair. `id` names the removals that `approve` would let through."""

    reason: str
    id: str = ""
    removals: int = 0

    def __str__(self) -> str:
        return self.told(f"syncd approve {self.id}")

    def told(self, command: str) -> str:
        """What happened, and the command that lets the removals through."""
        if not self.id:
            return f"halted: {self.reason}"
        return (
            f"halted: {self.reason}; if it is meant, run: {command} (removes {self.removals}; `syncd diff` lists them)"
        )


class CycleReport(NamedTuple):
    """One pass of the line. Times in seconds; `lag` from the first word to readable, None without one."""

    number: int
    full: bool
    took: float = 0.0
    lag: float | None = None
    put: int = 0
    removed: int = 0
    recorded: int = 0
    written: int = 0  # bytes
    entries: int = 0  # entries of the baseline afterwards
    problems: tuple[Problem, ...] = ()
    busy: tuple[bytes, ...] = ()
    again: frozenset[bytes] = frozenset()  # paths to look at once more
    drift: Mapping[str, int] = MappingProxyType({})
    aside: tuple[tuple[bytes, str], ...] = ()
    others: tuple[bytes, ...] = ()  # FIFOs, sockets and devices that are not mirrored
    dropped: tuple[bytes, ...] = ()  # setuid and setgid bits that are not mirrored
    notes: tuple[str, ...] = ()
    halt: Halt | None = None
    stopped: int = 0  # errno of the target that stopped the batch
    cut: bool = False  # the run was ended before the batch was

    @property
    def is_smooth(self) -> bool:
        """Whether nothing but its numbers has to be told of it, and it looked at some paths only."""
        return not (
            self.full or self.problems or self.busy or self.again or self.drift or self.aside or self.dropped
            or self.notes or self.halt or self.stopped or self.cut
        )  # fmt: skip

    @property
    def in_sync(self) -> bool:
        """Whether nothing has to be done once more. What `problems` names may still be missing."""
        return not (self.halt or self.stopped or self.busy or self.again or self.cut)

    def followed_by(self, later: CycleReport) -> CycleReport:
        """This one and a later look at some of its paths, as one; `problems` are the later one's alone."""
        return later._replace(
            number=self.number,
            full=self.full,
            took=self.took + later.took,
            lag=self.lag,
            put=self.put + later.put,
            removed=self.removed + later.removed,
            recorded=self.recorded + later.recorded,
            written=self.written + later.written,
            drift=self.drift,
            aside=self.aside + later.aside,
            others=self.others,
            dropped=self.dropped + later.dropped,
            notes=self.notes + later.notes,
        )

    def as_json(self) -> dict[str, Any]:
        """The stable record of `--json`: one object per cycle."""
        return {
            "schema": 1,
            "cycle": self.number,
            "full": self.full,
            "took": round(self.took, 6),
            "lag": None if self.lag is None else round(self.lag, 6),
            "put": self.put,
            "removed": self.removed,
            "recorded": self.recorded,
            "bytes": self.written,
            "entries": self.entries,
            "in_sync": self.in_sync and not self.problems,
            "problems": [
                path_fields(p.path) | {"errno": p.errno, "op": p.op, "side": p.side, "text": str(p)}
                for p in self.problems
            ],
            "busy": [path_fields(p) for p in self.busy],
            "drift": dict(self.drift),
            "set_aside": [path_fields(p) | {"kept": kept} for p, kept in self.aside],
            "not_mirrored": [path_fields(p) for p in self.others],
            "mode_bits_dropped": [path_fields(p) for p in self.dropped],
            "notes": list(self.notes),
            "halt": None if self.halt is None else {"reason": self.halt.reason, "id": self.halt.id},
            "stopped": self.stopped,
            "interrupted": self.cut,
        }
