"""Entries reached by descriptor: below an open root, one component at a time, never through a link."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import NamedTuple

import xxhash

from syncd.kernel.contract import Control
from syncd.kernel.pure.tree import join, parts
from syncd.model.entry import Entry, Fingerprint, Kind
from syncd.system import libc

ABSENT = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})
CHUNK = 1 << 20
BETWEEN_LOOKS = 8 << 20  # bytes after which a call looks whether it was cancelled
TIMES = (-(1 << 63), (1 << 63) - 1)  # what a baseline can hold

DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
LISTING = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
READING = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC  # only of what was pinned, so no O_NOFOLLOW
ITSELF = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC

CAP_DAC_OVERRIDE = 1 << 1  # linux/capability.h


class Cancelled(Exception):
    """Somebody set `control.cancelled`."""


class Unreachable(OSError):
    """A directory at or above a place could not be opened or listed: `path` (b"" is the root itself)."""

    def __init__(self, error: OSError, path: bytes) -> None:
        super().__init__(error.errno, error.strerror, path)
        self.path = path


def clamp(time_ns: int) -> int:
    return min(max(time_ns, TIMES[0]), TIMES[1])


def fingerprint(state: os.stat_result) -> Fingerprint:
    return Fingerprint(state.st_size, clamp(state.st_mtime_ns), clamp(state.st_ctime_ns), state.st_ino, state.st_mode)


def kind_of(mode: int) -> Kind:
    if stat.S_ISREG(mode):
        return Kind.FILE
    if stat.S_ISDIR(mode):
        return Kind.DIR
    return Kind.LINK if stat.S_ISLNK(mode) else Kind.OTHER


def mirrored(mode: int) -> int:
    """The permission bits that a mirror keeps: setuid and setgid are not among them."""
    return mode & 0o1777


@contextmanager
def opened(fd: int) -> Iterator[int]:
    """Close a descriptor at the end."""
    try:
        yield fd
    finally:
        os.close(fd)


@contextmanager
def directory(top: int, path: bytes) -> Iterator[int]:
    """An O_PATH descriptor of a directory below `top`.

    Raises Unreachable.
    """
    try:
        fd = os.open(b".", DIRECTORY, dir_fd=top)
    except OSError as error:
        raise Unreachable(error, b"") from None
    try:
        reached = b""
        for name in parts(path):
            reached = join(reached, name)
            fd = step(fd, name, reached)
        yield fd
    finally:
        os.close(fd)


def step(fd: int, name: bytes, reached: bytes) -> int:
    """Exchange a directory's descriptor for that of one in it; on failure it stays open."""
    try:
        below = os.open(name, DIRECTORY, dir_fd=fd)
    except OSError as error:
        raise Unreachable(error, reached) from None
    os.close(fd)
    return below


def look(dir_fd: int, name: bytes, force: bool = False) -> tuple[Entry, os.stat_result]:
    """What stands at a name, without a digest. Raises OSError."""
    if force:
        libc.refresh(dir_fd, name)
    state = os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
    link = None
    if stat.S_ISLNK(state.st_mode):
        with opened(os.open(name, ITSELF, dir_fd=dir_fd)) as fd:
            state = os.fstat(fd)
            if stat.S_ISLNK(state.st_mode):
                link = os.readlink(b"", dir_fd=fd)
    return Entry(kind_of(state.st_mode), fingerprint(state), None, link), state


def look_or_none(dir_fd: int, name: bytes) -> tuple[Entry, os.stat_result] | None:
    try:
        return look(dir_fd, name)
    except OSError as error:
        if error.errno in ABSENT:
            return None
        raise


def open_file(dir_fd: int, name: bytes, seen: Fingerprint | None = None) -> int:
    """Open a regular file for reading; ENOENT if there is something else, or (`seen`) another file.

    The entry is pinned without being opened, judged, and only then opened by its descriptor: whoever exchanges
    names meanwhile, nothing but what was judged is opened (opening a FIFO tells its writer, and a hard link
    may be a file from anywhere).
    """
    with opened(os.open(name, ITSELF, dir_fd=dir_fd)) as pin:
        state = os.fstat(pin)
        if not stat.S_ISREG(state.st_mode) or (seen is not None and fingerprint(state) != seen):
            raise FileNotFoundError(errno.ENOENT, "not the file that was looked for", name)
        return open_to_read(pin)


def open_to_read(pin: int) -> int:
    """Open just what a descriptor holds. Its access time stays, where that may be asked for.

    That is the user's, and noting it would cost a write for each file read. Raises OSError.
    """
    try:
        return os.open(via_proc(pin), READING | os.O_NOATIME)
    except PermissionError as error:
        if error.errno != errno.EPERM:
            raise
        return os.open(via_proc(pin), READING)  # somebody else's


def probe(fd: int) -> int:
    """Take a read lease and give it back at once.

    0: nobody can write the file at this moment. EAGAIN: somebody has it open for writing, or mapped.
    Any other errno: leases are refused here. It is never held: writers would block.
    """
    try:
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except OSError as error:
        return error.errno or errno.EINVAL
    return 0


class Read(NamedTuple):
    """What was read of a file: its digest, its state afterwards, and whether somebody holds it open for writing."""

    digest: bytes
    state: os.stat_result
    held: bool


def steadily(fd: int, read: Callable[[], bytes], control: Control, patient: bool = False) -> Read:
    """What `read` returns, the digest of an open file, if nobody wrote the file meanwhile.

    Raises BlockingIOError (EAGAIN) if somebody did or may have. Equal times alone prove nothing: they
    are stamped when a `write` begins. Where leases are refused two reads have to agree. `patient` lets
    a file pass that somebody holds open: the caller reads it again later.
    """
    before = os.fstat(fd)
    leases = [probe(fd)]
    if leases == [errno.EAGAIN] and not patient:
        raise BlockingIOError(errno.EAGAIN, "somebody writes it")
    digest = read()
    leases.append(probe(fd))
    held = errno.EAGAIN in leases
    agrees = patient if held else leases == [0, 0] or hash_file(fd, control) == digest
    after = os.fstat(fd)
    if not agrees or (before.st_ctime_ns, before.st_size) != (after.st_ctime_ns, after.st_size):
        raise BlockingIOError(errno.EAGAIN, "it changed while it was read")
    return Read(digest, after, held)


def hash_file(fd: int, control: Control) -> bytes:
    """The digest of an open file's content. Raises Cancelled."""
    state = xxhash.xxh3_128()
    for chunk in chunks(fd, control):
        state.update(chunk)
    return state.digest()


def chunks(fd: int, control: Control) -> Iterator[bytes]:
    offset = 0
    while chunk := os.pread(fd, CHUNK, offset):
        offset += len(chunk)
        control.bytes += len(chunk)
        if offset % BETWEEN_LOOKS == 0 and control.cancelled:
            raise Cancelled
        yield chunk


def write_all(fd: int, data: bytes, offset: int = 0) -> None:
    """Write all of `data` at an offset. A short write is followed by the rest or by its error."""
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, offset)
        view = view[written:]
        offset += written


def via_proc(fd: int) -> str:
    """A path to just what a descriptor holds, for calls that refuse O_PATH descriptors."""
    return f"/proc/self/fd/{fd}"


def obeys_modes() -> bool:
    """Whether permission bits count for this process: not for root with CAP_DAC_OVERRIDE."""
    return os.geteuid() != 0 or _binds_root()


@cache
def _binds_root() -> bool:
    try:
        with open("/proc/thread-self/status", encoding="ascii") as status:
            effective = next((line for line in status if line.startswith("CapEff:")), "")
    except OSError:
        return False
    return bool(effective) and not int(effective.split()[1], 16) & CAP_DAC_OVERRIDE
