"""An independent comparison of two trees, sharing nothing with syncd: plain `os` calls, descriptor-relative."""

from __future__ import annotations

import os
import stat
from collections.abc import Collection
from typing import NamedTuple


class Seen(NamedTuple):
    """What counts as equal: kind, permission bits, a file's time and bytes, a link's text."""

    kind: str
    mode: int
    mtime_ns: int
    body: bytes


def read_tree(root: str | bytes, leave_out: Collection[bytes] = ()) -> dict[bytes, Seen]:
    """Everything below `root` that can be mirrored, by relative path. Paths longer than PATH_MAX work."""
    found: dict[bytes, Seen] = {}
    top = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    _read(top, b"", found, frozenset(leave_out))
    return found


def _read(fd: int, above: bytes, found: dict[bytes, Seen], leave_out: Collection[bytes]) -> None:
    try:
        for name in map(os.fsencode, os.listdir(fd)):
            path = above + b"/" + name if above else name
            if path in leave_out:
                continue
            about = os.stat(name, dir_fd=fd, follow_symlinks=False)
            mode = stat.S_IMODE(about.st_mode) & 0o1777
            if stat.S_ISDIR(about.st_mode):
                found[path] = Seen("dir", mode, 0, b"")
                _read(os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=fd), path, found, leave_out)
            elif stat.S_ISLNK(about.st_mode):
                found[path] = Seen("link", 0, about.st_mtime_ns, os.readlink(name, dir_fd=fd))
            elif stat.S_ISREG(about.st_mode):
                found[path] = Seen("file", mode, about.st_mtime_ns, _bytes(fd, name))
    finally:
        os.close(fd)


def _bytes(fd: int, name: bytes) -> bytes:
    with open(os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=fd), "rb") as file:
        return file.read()


def differences(source: str | bytes, target: str | bytes, leave_out: Collection[bytes] = (b".git",)) -> list[str]:
    """What differs, one line each; empty when the trees are equal."""
    ours, theirs = read_tree(source, leave_out), read_tree(target, leave_out)
    lines = []
    for path in sorted(ours.keys() | theirs.keys()):
        one, other = ours.get(path), theirs.get(path)
        if one != other:
            lines.append(f"{path!r}: {_show(one)} != {_show(other)}")
    return lines


def _show(seen: Seen | None) -> str:
    if seen is None:
        return "absent"
    return f"{seen.kind} {seen.mode:04o} {seen.mtime_ns} {len(seen.body)}:{seen.body[:24]!r}"


def are_equal(source: str | bytes, target: str | bytes, leave_out: Collection[bytes] = (b".git",)) -> bool:
    """Whether they are, for trees in which somebody may be at work: what vanishes while it is read is not equal."""
    try:
        return not differences(source, target, leave_out)
    except FileNotFoundError:
        return False


def assert_equal(source: str | bytes, target: str | bytes, leave_out: Collection[bytes] = (b".git",)) -> None:
    """Fail with the first differences."""
    lines = differences(source, target, leave_out)
    assert not lines, f"{len(lines)} differ:\n" + "\n".join(lines[:20])
