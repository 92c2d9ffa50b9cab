"""What is mounted over parts of the mirror: it is not the mirror, so nothing is read or written there."""

from __future__ import annotations

import os

from syncd.kernel.contract import Base, Rules
from syncd.model.entry import Kind
from syncd.system.mounts import mounts_below


def covered(target: bytes, base: Base, rules: Rules) -> frozenset[bytes]:
    """Mount points below the target, directories and single files, that hide an entry which the baseline has.

    One that was there when the entry was agreed on is none of them. Links in `target` are followed; blocks on the disk.
    Raises OSError where the mounts cannot be listed.
    """
    top = os.path.realpath(target).rstrip(b"/")
    found = set()
    for mount in mounts_below(target):
        path = mount.point[len(top) + 1 :]
        row = base.get(path)
        if row is None or rules.excluded(path, row.kind is Kind.DIR):
            continue
        try:
            same = os.lstat(mount.point).st_ino == row.target.inode
        except OSError:
            same = False
        if not same:
            found.add(path)
    return frozenset(found)
