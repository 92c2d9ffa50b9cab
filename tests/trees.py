"""Trees on disk, written as literals, and the named entries of the table's tests.

    {"a.txt": b"text", "dir": {"x": b""}, "link": Link("a.txt"), "run": File(b"#!", mode=0o755)}

Names are str or bytes; one slash at the end of a directory's is allowed.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from syncd.model.entry import Agreed, Entry, Fingerprint, Kind

Literal = Mapping[Any, Any]


@dataclass(frozen=True)
class Link:
    """A symbolic link."""

    text: str | bytes

    def __post_init__(self) -> None:
        object.__setattr__(self, "text", os.fsencode(self.text))

    def __repr__(self) -> str:
        return f"Link({self.text!r})"


@dataclass(frozen=True)
class File:
    """A file of which more than the content matters."""

    data: bytes = b""
    mode: int = 0o644
    mtime_ns: int | None = None

    def __repr__(self) -> str:
        shown = self.data if len(self.data) < 20 else f"{len(self.data)} bytes"
        return f"File({shown!r}, {self.mode:#o}, {self.mtime_ns})"


@dataclass(frozen=True)
class Dir:
    """A directory of which the mode matters."""

    holds: Literal = field(default_factory=dict)
    mode: int = 0o755


@dataclass(frozen=True)
class Fifo:
    """Something that is never mirrored."""


# --- on disk ------------------------------------------------------------------------------------------


@contextmanager
def opened(path: str | bytes, dir_fd: int | None = None) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=dir_fd)
    try:
        yield fd
    finally:
        os.close(fd)


def build(top: Path | str | bytes, literal: Literal) -> None:
    """Make what `literal` says in the directory `top`, which may exist. Paths of any length."""
    os.makedirs(top, exist_ok=True)
    with opened(os.fsencode(top)) as fd:
        _build(fd, literal)


def _build(fd: int, literal: Literal) -> None:
    for key, value in literal.items():
        name = os.fsencode(key).removesuffix(b"/")
        if isinstance(value, dict):
            value = Dir(value)
        if isinstance(value, bytes):
            value = File(value)
        if isinstance(value, Link):
            os.symlink(value.text, name, dir_fd=fd)
        elif isinstance(value, Fifo):
            os.mkfifo(name, dir_fd=fd)
        elif isinstance(value, File):
            file = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600, dir_fd=fd)
            try:
                os.write(file, value.data)
                os.fchmod(file, value.mode)
                if value.mtime_ns is not None:
                    os.utime(file, ns=(value.mtime_ns, value.mtime_ns))
            finally:
                os.close(file)
        else:
            try:
                os.mkdir(name, 0o700, dir_fd=fd)
            except FileExistsError:
                pass
            with opened(name, fd) as below:
                _build(below, value.holds)
                os.fchmod(below, value.mode)


def read(top: Path | str | bytes) -> dict[bytes, Any]:
    """What stands in a directory, as a literal with `bytes` names."""
    with opened(os.fsencode(top)) as fd:
        return _read(fd)


def _read(fd: int) -> dict[bytes, Any]:
    found: dict[bytes, Any] = {}
    for name in sorted(map(os.fsencode, os.listdir(fd))):
        mode = os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode
        if stat.S_ISDIR(mode):
            with opened(name, fd) as below:
                found[name] = _read(below)
        elif stat.S_ISLNK(mode):
            found[name] = Link(os.readlink(name, dir_fd=fd))
        elif stat.S_ISREG(mode):
            with open(os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=fd), "rb") as file:
                found[name] = file.read()
        else:
            found[name] = Fifo()
    return found


def contents(top: Path | str | bytes) -> list[bytes]:
    """The bytes of every file below a directory, sorted: to see that none is lost."""

    def walk(literal: dict[bytes, Any]) -> Iterator[bytes]:
        for value in literal.values():
            if isinstance(value, dict):
                yield from walk(value)
            elif isinstance(value, bytes):
                yield value

    return sorted(walk(read(top)))


def as_bytes(literal: Literal) -> dict[bytes, Any]:
    """A literal as `read` gives it."""
    found: dict[bytes, Any] = {}
    for key, value in literal.items():
        name = os.fsencode(key).removesuffix(b"/")
        if isinstance(value, Dir):
            value = value.holds
        if isinstance(value, Mapping):
            value = as_bytes(value)
        elif isinstance(value, File):
            value = value.data
        found[name] = value
    return dict(sorted(found.items()))


# --- what the rows of a table are made of: three entries of each kind, none equal to another ----------

F1, F2, F3 = b"one", b"two", b"three"
L1, L2, L3 = Link("one"), Link("two"), Link("three")
D0: dict[str, Any] = {}
D1 = {"inner": b"one"}
O1 = Fifo()
NO = None

KINDS: dict[str, tuple[Any, Any, Any]] = {
    "files": (F1, F2, F3),
    "links": (L1, L2, L3),
    "file, link, directory": (F1, L1, D0),
    "link, directory, file": (L1, D0, F1),
    "directory, file, link": (D0, F1, L1),
}

SEEN = Fingerprint(3, 1_000, 2_000, 7, stat.S_IFREG | 0o644)


def entry(kind: Kind = Kind.FILE, digest: bytes | None = b"d" * 16, link: bytes | None = None) -> Entry:
    """An entry that no disk holds."""
    return Entry(kind, SEEN, digest if kind == Kind.FILE else None, link)


def agreed(kind: Kind = Kind.FILE, **changed: Any) -> Agreed:
    """A row of a baseline that no disk holds."""
    row = Agreed(
        kind,
        0o644,
        1_000,
        b"d" * 16 if kind == Kind.FILE else None,
        b"text" if kind == Kind.LINK else None,
        SEEN,
        SEEN._replace(inode=8),
    )
    return row._replace(**changed)
