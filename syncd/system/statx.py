"""`statx(2)`, of which Python 3.11 knows nothing: forced attributes and mount ids."""

from __future__ import annotations

import ctypes
import errno
import functools
import os
import stat
from collections.abc import Callable
from typing import NamedTuple

AT_FDCWD = -100
AT_SYMLINK_NOFOLLOW = 0x100
AT_EMPTY_PATH = 0x1000
AT_FORCE_SYNC = 0x2000

BASIC_STATS = 0x7FF
BTIME = 0x800
MNT_ID = 0x1000  # since 5.8: the id of mountinfo, used again after an umount
MNT_ID_UNIQUE = 0x4000  # since 6.8: never used twice in one boot


class _Time(ctypes.Structure):
    _fields_ = [("sec", ctypes.c_int64), ("nsec", ctypes.c_uint32), ("reserved", ctypes.c_int32)]


class _Buffer(ctypes.Structure):
    _fields_ = [
        ("mask", ctypes.c_uint32),
        ("blksize", ctypes.c_uint32),
        ("attributes", ctypes.c_uint64),
        ("nlink", ctypes.c_uint32),
        ("uid", ctypes.c_uint32),
        ("gid", ctypes.c_uint32),
        ("mode", ctypes.c_uint16),
        ("spare0", ctypes.c_uint16),
        ("ino", ctypes.c_uint64),
        ("size", ctypes.c_uint64),
        ("blocks", ctypes.c_uint64),
        ("attributes_mask", ctypes.c_uint64),
        ("atime", _Time),
        ("btime", _Time),
        ("ctime", _Time),
        ("mtime", _Time),
        ("rdev_major", ctypes.c_uint32),
        ("rdev_minor", ctypes.c_uint32),
        ("dev_major", ctypes.c_uint32),
        ("dev_minor", ctypes.c_uint32),
        ("mnt_id", ctypes.c_uint64),
        ("rest", ctypes.c_uint64 * 13),
    ]


class Statx(NamedTuple):
    """What the kernel told. A field counts only if its bit stands in `mask`; times in nanoseconds."""

    mask: int
    mode: int
    inode: int
    size: int
    nlink: int
    mtime_ns: int
    ctime_ns: int
    device: int
    mount: int
    btime_ns: int  # when it was made

    @property
    def is_regular(self) -> bool:
        """Whether it is a plain file."""
        return stat.S_ISREG(self.mode)


@functools.cache
def _call() -> Callable[..., int] | None:
    """The C library's function, or None where there is none (before glibc 2.28, musl 1.2.3, or no Linux)."""
    try:
        function = ctypes.CDLL(None, use_errno=True).statx
    except (AttributeError, OSError, TypeError):
        return None
    function.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_uint, ctypes.POINTER(_Buffer)]
    function.restype = ctypes.c_int
    return function


def statx(
    path: bytes | int, flags: int = AT_SYMLINK_NOFOLLOW, mask: int = BASIC_STATS, dir_fd: int = AT_FDCWD
) -> Statx:
    """Attributes of a path (relative to `dir_fd`) or of an open descriptor.

    Blocks on the file's server with AT_FORCE_SYNC. Raises OSError, ENOSYS where the call is unknown.
    """
    function = _call()
    if function is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    buffer = _Buffer()
    if isinstance(path, int):
        code = function(path, b"", flags | AT_EMPTY_PATH, mask, ctypes.byref(buffer))
    else:
        code = function(dir_fd, path, flags, mask, ctypes.byref(buffer))
    if code != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), None if isinstance(path, int) else path)
    return Statx(
        buffer.mask,
        buffer.mode,
        buffer.ino,
        buffer.size,
        buffer.nlink,
        buffer.mtime.sec * 1_000_000_000 + buffer.mtime.nsec,
        buffer.ctime.sec * 1_000_000_000 + buffer.ctime.nsec,
        os.makedev(buffer.dev_major, buffer.dev_minor),
        buffer.mnt_id,
        buffer.btime.sec * 1_000_000_000 + buffer.btime.nsec,
    )
