"""`flock(2)`: taking one, and who has it."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import time
from pathlib import Path

LOCKS = Path("/proc/locks")
# EBADF: NFS makes a record lock of it, which wants a file that is open for writing, and no directory ever is.
_WITHOUT_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.EBADF)
_TRIES, _PAUSE = 5, 0.01  # `is_taken` of another process holds a lock for microseconds


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


def take_soon(fd: int) -> bool:
    """As `take`, but somebody who only asks whether it is taken does not count: waits up to 40 ms for him."""
    for _ in range(_TRIES - 1):
        if take(fd):
            return True
        time.sleep(_PAUSE)
    return take(fd)


def is_taken(path: Path) -> bool:
    """Whether somebody has locked the file or directory. One that cannot be opened is not locked."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return not take(fd, shared=True)
    finally:
        os.close(fd)


def holder(device: int, inode: int) -> int | None:
    """The process that holds the lock on this file, or None if it cannot be seen (another pid namespace, btrfs)."""
    name = f"{os.major(device):02x}:{os.minor(device):02x}:{inode}"
    try:
        match = re.search(rf"^\d+: FLOCK +\S+ +\S+ +(\d+) {name} ", LOCKS.read_text(encoding="ascii"), re.MULTILINE)
    except OSError:
        return None
    return int(match[1]) if match else None
