"""Digest: read the files whose doubt matters to the table."""

from __future__ import annotations

import errno
from collections.abc import Sequence

from syncd.kernel.contract import Control, Root, Side, Trouble
from syncd.kernel.pure.files import (
    ABSENT,
    Cancelled,
    Read,
    directory,
    fingerprint,
    hash_file,
    open_file,
    opened,
    steadily,
)
from syncd.kernel.pure.tree import PureBase, PureTree
from syncd.model.entry import Agreed, Entry, Fingerprint, Kind
from syncd.model.path import name, parent


def digest(
    base: PureBase,
    source: PureTree,
    target: PureTree,
    roots: tuple[Root, Root],
    control: Control,
    exact: bool,
) -> tuple[PureTree, PureTree]:
    """Read what matters: see the contract. The trees given stay as they are."""
    trees = [source, target]
    wanted = wanted_paths(base, source, target, exact)
    for side in Side:
        if wanted[side]:
            trees[side] = trees[side].copy()
            for path, seen in wanted[side]:
                if control.cancelled:
                    break
                learn(trees[side], roots[side], side, path, seen, control)
            trees[side].finish()
    return trees[Side.SOURCE], trees[Side.TARGET]


def wanted_paths(
    base: PureBase, source: PureTree, target: PureTree, exact: bool
) -> tuple[list[tuple[bytes, Fingerprint]], list[tuple[bytes, Fingerprint]]]:
    """Paths to be read on either side, with the fingerprint under which the scan saw them."""
    from_source: list[tuple[bytes, Fingerprint]] = []
    from_target: list[tuple[bytes, Fingerprint]] = []
    for path, entry in target.rows():
        sizes = size(source.get(path)), agreed_size(base.get(path), Side.TARGET)
        if in_doubt(entry) and source.knows(path) and target.knows(path) and entry.seen.size in sizes:
            from_target.append((path, entry.seen))
    for path, entry in source.rows():
        if in_doubt(entry) and source.knows(path) and target.knows(path):
            there, agreed = target.get(path), base.get(path)
            drifted = there is None or there.digest is None or agreed is None or there.digest != agreed.digest
            touched = entry.seen.size == agreed_size(agreed, Side.SOURCE)
            if (touched and (exact or drifted)) or (drifted and entry.seen.size == size(there)):
                from_source.append((path, entry.seen))
    return from_source, from_target


def in_doubt(entry: Entry) -> bool:
    return entry.kind == Kind.FILE and entry.digest is None


def size(entry: Entry | None) -> int | None:
    return entry.seen.size if entry and entry.kind == Kind.FILE else None


def agreed_size(agreed: Agreed | None, side: Side) -> int | None:
    if agreed is None or agreed.kind != Kind.FILE:
        return None
    return agreed.source.size if side is Side.SOURCE else agreed.target.size


def learn(tree: PureTree, root: Root, side: Side, path: bytes, seen: Fingerprint, control: Control) -> None:
    """Give one file of a tree its digest. One that changed since the scan, or is written now, gets none."""
    entry = tree.get(path)
    assert entry is not None
    try:
        found = read(root, path, control, seen)
    except Cancelled:
        return
    except OSError as error:
        if error.errno not in ABSENT and error.errno != errno.EAGAIN:
            tree.troubles.append(Trouble(path, error.errno or errno.EIO, "read", side))
        return
    if fingerprint(found.state) == seen:
        tree.put(path, entry._replace(digest=found.digest))


def read(root: Root, path: bytes, control: Control, seen: Fingerprint | None = None) -> Read:
    """The digest of a file below a root. Raises Cancelled and OSError (ENOENT: no file, or not `seen`, is there)."""
    with directory(root.fd, parent(path)) as fd, opened(open_file(fd, name(path), seen)) as file:
        return steadily(file, lambda: hash_file(file, control), control)


def hash_many(root: Root, paths: Sequence[bytes], control: Control) -> list[bytes | int]:
    """The digest of each file, or an errno. Those not read before a cancel have ECANCELED."""
    found: list[bytes | int] = []
    for path in paths:
        if control.cancelled:
            found.append(errno.ECANCELED)
            continue
        try:
            found.append(read(root, path, control).digest)
            control.entries += 1
        except Cancelled:
            found.append(errno.ECANCELED)
        except OSError as error:
            absent = error.errno in ABSENT
            found.append(errno.ENOENT if absent else error.errno or errno.EIO)
    return found
