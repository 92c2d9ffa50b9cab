"""One call of `place`: what all its steps share."""

from __future__ import annotations

import errno
import itertools
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from syncd.kernel.contract import Control, PlaceOptions, Raw, Root, Side, Status, Trouble
from syncd.kernel.pure.diff import PureActions
from syncd.kernel.pure.rules import PureRules
from syncd.kernel.pure.tree import PureBase
from syncd.model.entry import Agreed

FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO})
SMALL = 128 << 10  # a file of at most so many bytes is held in memory, and may be written in place
HELD = 32 << 20  # bytes held in memory in all


class Ended(Exception):
    """An action ended otherwise than as planned."""

    def __init__(self, status: Status, number: int = 0, op: str = "", side: Side = Side.TARGET) -> None:
        super().__init__(status)
        self.status = status
        self.number = number
        self.op = op
        self.side = side


class Full(Exception):
    """The target as a whole takes no more: the slice stops. `number` is one of FULL."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@contextmanager
def failing(op: str, side: Side = Side.TARGET) -> Iterator[None]:
    """Turn an OSError into the end of the action, or of the slice if it is a fact of the target."""
    try:
        yield
    except OSError as error:
        number = error.errno or errno.EIO
        if side is Side.TARGET and number in FULL:
            raise Full(number) from error
        raise Ended(Status.FAILED, number, op, side) from error


@dataclass(slots=True)
class PureOutcomes:
    """How the actions of one slice ended."""

    next: int
    puts: int = 0
    removed: int = 0
    stopped: int = 0
    bytes: int = 0
    troubles: list[Trouble] = field(default_factory=list)
    aside: list[tuple[Raw, Raw]] = field(default_factory=list)
    dropped: list[tuple[Raw, int]] = field(default_factory=list)
    ends: dict[int, tuple[Raw, Status, Trouble | None]] = field(default_factory=dict)
    learnt: list[tuple[Raw, Agreed | None]] = field(default_factory=list)  # in the order of doing

    @property
    def done(self) -> int:
        return len(self.paths(Status.DONE))

    @property
    def same(self) -> int:
        return len(self.paths(Status.SAME))

    @property
    def smooth(self) -> bool:
        return self.done + self.same == len(self.ends) and not (self.aside or self.dropped)

    def counts(self) -> dict[Status, int]:
        statuses = [status for _, status, _ in self.ends.values()]
        return {status: statuses.count(status) for status in Status if status in statuses}

    def paths(self, status: Status) -> list[Raw]:
        return [path for _, (path, each, _) in sorted(self.ends.items()) if each is status]

    def rows(self) -> list[tuple[Raw, Agreed | None]]:
        """What the baseline learns: the rows of the actions, and of directories made on the way to them."""
        return self.learnt


@dataclass(slots=True)
class Call:
    """The arguments of `place`, and what its steps count and number."""

    source: Root
    target: Root
    rules: PureRules
    base: PureBase
    actions: PureActions
    options: PlaceOptions
    control: Control
    outcomes: PureOutcomes
    crash: Callable[[str], None]
    held: int = 0
    numbers: Iterator[int] = field(default_factory=itertools.count)
    staged: set[bytes] = field(default_factory=set)

    def temporary(self, prefix: bytes, make: Callable[[bytes], object]) -> bytes:
        """Make something under the first free name `prefix`-N."""
        while True:
            name = b"%s-%d" % (prefix, next(self.numbers))
            try:
                make(name)
            except FileExistsError:
                continue
            return name

    def tidy(self) -> None:
        """Remove staged files that were not published."""
        for name in self.staged:
            with suppress(OSError):
                os.unlink(name, dir_fd=self.options.staging)


def crash_point() -> Callable[[str], None]:
    """For tests: SYNCD_CRASH_AT="step:n" kills the process at the n-th passage of a step, "step:n:stop" stops it."""
    wanted, _, rest = os.environ.get("SYNCD_CRASH_AT", "").partition(":")
    number, _, how = rest.partition(":")
    passages = itertools.count(1)

    def passed(step: str) -> None:
        if step == wanted and next(passages) == int(number):
            signal.raise_signal(signal.SIGSTOP if how == "stop" else signal.SIGKILL)

    return passed
