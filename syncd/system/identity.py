"""To know a directory again: by more than device and inode, which the root of another filesystem may have, too."""

from __future__ import annotations

import os

from syncd.system.mounts import mount_of
from syncd.system.statx import BTIME, statx

LASTING = frozenset({"ext2", "ext3", "ext4", "btrfs", "bcachefs", "tmpfs", "zfs"})  # their ids come from a uuid


def birth(path: bytes | int) -> tuple[int, int]:
    """When a directory was made, and the id of its filesystem (a link at `path` is followed); 0 where there is none.

    The id may be another one when the same filesystem is mounted again: on XFS it is the device's number. Raises OSError.
    """
    try:
        seen = statx(path, 0, BTIME)
    except OSError:
        return 0, os.statvfs(path).f_fsid
    return seen.btime_ns if seen.mask & BTIME else 0, os.statvfs(path).f_fsid


def identity(path: bytes) -> list[int]:
    """Inode, time of making and filesystem of a directory (a link is followed), to know it again in another run.

    0 stands for what there is not, or what does not last. Raises OSError.
    """
    mount = mount_of(path)
    made, filesystem = birth(path)
    return [os.stat(path).st_ino, made, filesystem if mount is not None and mount.fstype in LASTING else 0]
