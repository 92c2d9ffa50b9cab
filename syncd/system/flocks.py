"""`flock(2)`: taking one, and who has it."""

from __future__ import annotations

import errno
import fcntl
import os
import re
from pathlib import Path

LOCKS = Path("/proc/locks")
_WITHOUT_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)


def take(fd: int, shared: bool = False) -> bool:
    """Lock an open file or directory until it is closed. False if somebody else has it. Never blocks.

    A filesystem that knows no locks grants it.
    """
    try:
        fcntl.flock(fd, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _WITHOUT_LOCKS:
            raise
    return True


def holder(device: int, inode: int) -> int | None:
    """The process that holds the lock on this file, or None if it cannot be seen (another pid namespace, btrfs)."""
    name = f"{os.major(device):02x}:{os.minor(device):02x}:{inode}"
    try:
        match = re.search(rf"^\d+: FLOCK +\S+ +\S+ +(\d+) {name} ", LOCKS.read_text(encoding="ascii"), re.MULTILINE)
    except OSError:
        return None
    return int(match[1]) if match else None
