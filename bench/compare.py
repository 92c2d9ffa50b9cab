"""Whether two trees are equal, found out without any code of syncd's."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

NOTHING: frozenset[str] = frozenset()


def differences(source: Path, target: Path, skip: frozenset[str] = NOTHING, modes: bool = False) -> Iterator[str]:
    """What differs in kind, bytes, link text or presence (with `modes` also in permission bits), as text, lazily.

    Names in `skip` are passed over at the top. Files are read whole; nothing is believed for its size or times.
    """
    stack = [""]
    while stack:
        at = stack.pop()
        left, right = _names(source / at), _names(target / at)
        if not at:
            left, right = left - skip, right - skip
        for name in sorted(left ^ right):
            yield f"{os.path.join(at, name)}: only in the {'source' if name in left else 'target'}"
        for name in sorted(left & right):
            path = os.path.join(at, name)
            a, b = os.path.join(source, path), os.path.join(target, path)
            one, two = os.lstat(a), os.lstat(b)
            kind = stat.S_IFMT(one.st_mode)
            if kind != stat.S_IFMT(two.st_mode):
                yield f"{path}: of another kind"
            elif kind == stat.S_IFDIR:
                stack.append(path)
            elif kind == stat.S_IFLNK:
                if os.readlink(a) != os.readlink(b):
                    yield f"{path}: points elsewhere"
            elif kind == stat.S_IFREG and (one.st_size != two.st_size or _read(a) != _read(b)):
                yield f"{path}: other bytes"
            if modes and kind != stat.S_IFLNK and stat.S_IMODE(one.st_mode) != stat.S_IMODE(two.st_mode):
                yield f"{path}: mode {stat.S_IMODE(two.st_mode):o} instead of {stat.S_IMODE(one.st_mode):o}"


def equal(source: Path, target: Path, skip: frozenset[str] = NOTHING) -> str:
    """The first difference, or "" if there is none."""
    return next(differences(source, target, skip), "")


def _names(directory: Path) -> set[str]:
    try:
        return set(os.listdir(directory))
    except FileNotFoundError:
        return set()


def _read(path: str) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        parts = []
        while part := os.read(descriptor, 1 << 20):
            parts.append(part)
        return b"".join(parts)
    finally:
        os.close(descriptor)
