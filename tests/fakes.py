"""Small stand-ins for handles and bodies of the kernel, for deciders and for what stands around them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from syncd.model.change import Line, Row
from syncd.model.entry import Agreed, Entry, Fingerprint, Kind


@dataclass
class FakeDiff:
    """A diff that knows only how many paths stand in each line."""

    lines: Mapping[Line, int] = field(default_factory=dict)
    unexplained: int = 0
    id: str = ""
    listed: Mapping[Line, Sequence[Row]] = field(default_factory=dict)

    def count(self, line: Line) -> int:
        return self.lines.get(line, 0)

    def counts(self) -> dict[Line, int]:
        return {line: self.count(line) for line in Line}

    def bytes(self, line: Line) -> int:
        return 0

    def rows(self, line: Line, start: int = 0, stop: int = -1) -> list[Row]:
        rows = list(self.listed.get(line, ()))
        return rows[start:] if stop < 0 else rows[start:stop]

    def actions(self, verbs: object) -> None:
        raise NotImplementedError


@dataclass
class FakeRoot:
    """An open root."""

    device: int = 1
    inode: int = 1
    fd: int = -1
    closed: bool = False

    def close(self) -> None:
        self.closed = True


def fingerprint(inode: int = 1, size: int = 0) -> Fingerprint:
    return Fingerprint(size, 1, 1, inode, 0o100644)


def entry(inode: int = 1) -> Entry:
    return Entry(Kind.FILE, fingerprint(inode))


def agreed(digest: bytes = b"d" * 16, inode: int = 1) -> Agreed:
    """A baseline row of a file."""
    return Agreed(Kind.FILE, 0o644, 1, digest, None, fingerprint(inode), fingerprint(inode + 1))
