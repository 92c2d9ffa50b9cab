"""Take: read a source entry that is to be put, so that publishing needs the source no more."""

from __future__ import annotations

import errno
import fcntl
import os
from dataclasses import dataclass, replace

import xxhash

from syncd.kernel.contract import Control, Side, Status
from syncd.kernel.pure.call import HELD, SMALL, Call, Ended, failing
from syncd.kernel.pure.diff import Action, equal
from syncd.kernel.pure.files import (
    ABSENT,
    BETWEEN_LOOKS,
    CHUNK,
    Cancelled,
    chunks,
    directory,
    fingerprint,
    hash_file,
    look,
    open_file,
    opened,
    steadily,
    write_all,
)
from syncd.model.entry import Entry, Kind
from syncd.model.path import name, parent
from syncd.model.plan import Verb

FICLONE = 0x40049409


@dataclass(slots=True)
class Taken:
    """A source entry as it will be put. A file's content is in `data` or in staging under `staged`."""

    entry: Entry
    state: os.stat_result
    data: bytes | None = None
    staged: bytes | None = None
    mount: bool = False
    same: bool = False  # the target holds it already: only mode and mtime are written
    held: bool = False  # somebody holds the file open for writing: it is to be read once more


def take(call: Call, action: Action) -> Taken | None:
    """Read the source of an action. None if it has none. Raises Ended, Full and Cancelled."""
    path, base, expected, target = action.row
    if expected is None or action.verb is Verb.REMOVE:
        return None
    try:
        with directory(call.source.fd, parent(path)) as fd:
            entry, state = look(fd, name(path))
            if entry.kind != expected.kind:
                raise Ended(Status.VANISHED)
            if entry.kind == Kind.FILE and action.verb is not Verb.RECORD:
                with opened(open_file(fd, name(path))) as file:
                    taken = take_file(call, file)
                if action.verb is Verb.PUT and equal(target, base) and equal(taken.entry, base):
                    return replace(taken, same=True)
                return taken
            mount = entry.kind == Kind.DIR and state.st_dev != os.fstat(fd).st_dev
    except OSError as error:
        raise _unread(error) from None
    # What the scan saw is recorded: a directory's time then has to be that of its listing.
    as_scanned = entry.kind == Kind.DIR or action.verb is Verb.RECORD
    return Taken(expected if as_scanned else entry, state, mount=mount)


def take_file(call: Call, file: int) -> Taken:
    """Read an open source file into memory, or into staging if it is large or has holes."""
    state = os.fstat(file)
    data: bytes | None = None
    staged: bytes | None = None

    def into_memory() -> bytes:
        nonlocal data
        data = b"".join(chunks(file, call.control))
        return xxhash.xxh3_128(data).digest()

    def into_staging() -> bytes:
        nonlocal staged
        with failing("write"):
            staged, copied = new_file(call, call.options.staging, b"new")
        call.staged.add(staged)
        with opened(copied):
            copy(file, copied, state.st_size, call.control)
            with failing("write"):
                return hash_file(copied, call.control)

    has_holes = state.st_blocks * 512 < state.st_size
    small = state.st_size <= SMALL and call.held + state.st_size <= HELD and not has_holes
    try:
        read = steadily(file, into_memory if small else into_staging, call.control, call.options.patient)
    except BaseException:
        drop_staged(call, staged)
        raise
    call.held += len(data or b"")
    entry = Entry(Kind.FILE, fingerprint(read.state), read.digest)
    return Taken(entry, read.state, data, staged, held=read.held)


def _unread(error: OSError) -> Ended:
    """How an action ends whose source cannot be read."""
    if error.errno in ABSENT:
        return Ended(Status.VANISHED)
    if error.errno == errno.EAGAIN:
        return Ended(Status.BUSY)
    return Ended(Status.FAILED, error.errno or errno.EIO, "read", Side.SOURCE)


def take_content(call: Call, path: bytes) -> Taken:
    """Read a source file at the time of publishing. Raises Ended."""
    try:
        with directory(call.source.fd, parent(path)) as fd, opened(open_file(fd, name(path))) as file:
            return take_file(call, file)
    except OSError as error:
        raise _unread(error) from None


def take_again(call: Call, path: bytes, taken: Taken) -> None:
    """Read a file once more that somebody holds open for writing. Raises Ended (BUSY) if it is another."""
    drop = True
    try:
        with directory(call.source.fd, parent(path)) as fd, opened(open_file(fd, name(path))) as file:
            digest = hash_file(file, call.control)
            drop = digest != taken.entry.digest or fingerprint(os.fstat(file)) != taken.entry.seen
    except OSError:
        pass
    if drop:
        drop_staged(call, taken.staged)
        raise Ended(Status.BUSY)


def new_file(call: Call, dir_fd: int, prefix: bytes) -> tuple[bytes, int]:
    """Make an empty file under a temporary name; its name and a descriptor for reading and writing."""
    made: list[int] = []
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    temporary = call.temporary(prefix, lambda free: made.append(os.open(free, flags, 0o600, dir_fd=dir_fd)))
    return temporary, made[0]


def drop_staged(call: Call, staged: bytes | None) -> None:
    if staged is not None:
        os.unlink(staged, dir_fd=call.options.staging)
        call.staged.discard(staged)


def copy(source: int, copied: int, size: int, control: Control) -> None:
    """Copy an open file into an empty one: by reflink, else in the kernel, else through memory.

    Holes stay holes. Trouble with the source is an OSError, with the copy Ended or Full.
    """
    try:
        fcntl.ioctl(copied, FICLONE, source)
        return
    except OSError:
        pass
    with failing("write"):
        os.ftruncate(copied, size)
    at = 0
    while at < size:
        try:
            start = os.lseek(source, at, os.SEEK_DATA)
            end = os.lseek(source, start, os.SEEK_HOLE)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return
            start, end = at, size
        copy_range(source, copied, start, min(end, size), control)
        at = end


def copy_range(source: int, copied: int, at: int, end: int, control: Control) -> None:
    in_kernel = True
    while at < end:
        if control.cancelled:
            raise Cancelled
        step = min(end - at, BETWEEN_LOOKS if in_kernel else CHUNK)
        count = 0
        if in_kernel:
            try:
                count = os.copy_file_range(source, copied, step, at, at)
            except OSError:
                in_kernel = False
                continue
        if count == 0:
            piece = os.pread(source, min(step, CHUNK), at)
            if not piece:
                return
            with failing("write"):
                write_all(copied, piece, at)
            count = len(piece)
        at += count
        control.bytes += count
