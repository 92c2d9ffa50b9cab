"""System calls that Python lacks, by ctypes. Each says what happens where the C library lacks it."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import signal
import stat
from collections.abc import Callable

RENAME_NOREPLACE = 1
FALLOC_FL_KEEP_SIZE = 1
AT_SYMLINK_NOFOLLOW = 0x100
AT_STATX_FORCE_SYNC = 0x2000
STATX_BASIC_STATS = 0x7FF

_libc = ctypes.CDLL(None, use_errno=True)


def _call(name: str, *types: object) -> Callable[..., int] | None:
    """The C function `name`, returning an int; None where it is missing."""
    try:
        function = getattr(_libc, name)
    except AttributeError:
        return None
    function.argtypes = types
    function.restype = ctypes.c_int

    def call(*arguments: object) -> int:
        while True:
            if function(*arguments) == 0:
                return 0
            number = ctypes.get_errno()
            if number != errno.EINTR:
                return number

    return call


_renameat2 = _call("renameat2", ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)
_statx = _call("statx", ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_uint, ctypes.c_void_p)
_syncfs = _call("syncfs", ctypes.c_int)
_fallocate = _call("fallocate64", ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)


def rename_new(old_dir: int, old: bytes, new_dir: int, new: bytes) -> None:
    """Rename, but never over anything: EEXIST then.

    Where the kernel or the filesystem lacks renameat2 with NOREPLACE, the new name is claimed by an
    empty file or directory first (O_EXCL) and that is renamed over.
    """
    number = _renameat2(old_dir, old, new_dir, new, RENAME_NOREPLACE) if _renameat2 else errno.ENOSYS
    if number in (errno.ENOSYS, errno.EINVAL):
        _claim_and_rename(old_dir, old, new_dir, new)
    elif number:
        raise OSError(number, os.strerror(number), new)


def _claim_and_rename(old_dir: int, old: bytes, new_dir: int, new: bytes) -> None:
    is_dir = stat.S_ISDIR(os.stat(old, dir_fd=old_dir, follow_symlinks=False).st_mode)
    if is_dir:
        os.mkdir(new, 0o700, dir_fd=new_dir)
    else:
        os.close(os.open(new, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600, dir_fd=new_dir))
    try:
        os.rename(old, new, src_dir_fd=old_dir, dst_dir_fd=new_dir)
    except OSError:
        with contextlib.suppress(OSError):
            (os.rmdir if is_dir else os.unlink)(new, dir_fd=new_dir)
        raise


def refresh(dir_fd: int, name: bytes) -> None:
    """Make the next `stat` of a name tell what the file's server holds. Without statx nothing happens.

    Says nothing about errors: the `stat` that follows meets them again.
    """
    if _statx:
        room = ctypes.create_string_buffer(256)
        _statx(dir_fd, name, AT_STATX_FORCE_SYNC | AT_SYMLINK_NOFOLLOW, STATX_BASIC_STATS, room)


def syncfs(fd: int) -> None:
    """Write out all of the filesystem that holds `fd`. Without syncfs: of every filesystem."""
    if _syncfs is None:
        os.sync()
        return
    number = _syncfs(fd)
    if number:
        raise OSError(number, os.strerror(number))


def reserve(fd: int, size: int) -> None:
    """Reserve room for the first `size` bytes; the file's size stays. EOPNOTSUPP where that cannot be."""
    number = _fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, size) if _fallocate else errno.EOPNOTSUPP
    if number:
        raise OSError(number, os.strerror(number))


def ignore_sigio() -> None:
    """Ignore SIGIO in the whole process, from any thread: a broken lease would end it otherwise."""
    function = _libc.signal
    function.argtypes = (ctypes.c_int, ctypes.c_void_p)
    function.restype = ctypes.c_void_p
    function(signal.SIGIO, 1)
