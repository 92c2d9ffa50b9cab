"""In place, or under the final name at once: what is not made beside."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import ExitStack, suppress

from syncd.kernel.contract import Status
from syncd.kernel.pure.beside import UNSURE, fill, give_attributes, put_beside, wanted_owner
from syncd.kernel.pure.call import SMALL, Call, Ended, Full, failing
from syncd.kernel.pure.control import PureControl
from syncd.kernel.pure.diff import Action, equal
from syncd.kernel.pure.files import (
    BETWEEN_LOOKS,
    DIRECTORY,
    fingerprint,
    hash_file,
    mirrored,
    open_file,
    opened,
    probe,
    via_proc,
)
from syncd.kernel.pure.take import Taken
from syncd.model.entry import Entry, Fingerprint, Kind
from syncd.model.path import name
from syncd.system import libc

WRITING = os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC


def may_be_in_place(call: Call, action: Action, taken: Taken, state: os.stat_result) -> bool:
    """Whether a target file is overwritten rather than replaced: what is mounted or watched stays."""
    entry, mode = taken.entry, state.st_mode & 0o7777
    if entry.kind != Kind.FILE or not stat.S_ISREG(state.st_mode) or call.options.write == "replace":
        return False
    if state.st_nlink != 1 or not equal(action.row.target, action.row.base):
        return False
    owner = wanted_owner(call, taken)
    if mode != mirrored(entry.seen.mode) or owner not in (None, (state.st_uid, state.st_gid)):
        return False
    if call.options.write == "inplace":
        return True
    grows = state.st_size <= entry.seen.size <= SMALL
    return taken.data is not None and grows and not mode & 0o111


def put_in_place(call: Call, dir_fd: int, path: bytes, taken: Taken, old: Entry) -> Fingerprint | None:
    """Overwrite a file with one write. None if it has to be replaced after all; it is untouched then."""
    at = name(path)
    with ExitStack() as fds:
        try:
            reader = fds.enter_context(opened(open_file(dir_fd, at, old.seen)))
            if probe(reader) != 0:
                return None
            # The very file that was judged, whatever has its name by now.
            fd = fds.enter_context(opened(os.open(via_proc(reader), WRITING)))
            state = os.fstat(fd)
            if fingerprint(state) != old.seen:
                return None
            if taken.entry.seen.size > max(old.seen.size, state.st_blocks * 512):
                libc.reserve(fd, taken.entry.seen.size)
        except OSError:
            return None
        try:
            overwrite(call, fd, taken)
            call.crash("publish-inplace")
            if taken.entry.seen.size < old.seen.size:
                os.ftruncate(fd, taken.entry.seen.size)
            os.utime(fd, ns=(os.fstat(fd).st_atime_ns, taken.entry.seen.mtime_ns))
        except OSError as error:
            torn = os.fstat(fd)
            fds.close()  # or it would look as if somebody else held the file open
            return finish_torn(call, dir_fd, path, taken, torn, error)
        return holds(reader, taken)


def holds(fd: int, taken: Taken) -> Fingerprint:
    """The fingerprint of a file that was just written; UNSURE if another content is in it.

    It is read back because setting the mtime hid what somebody wrote a moment before.
    """
    seen = fingerprint(os.fstat(fd))
    try:
        return seen if hash_file(fd, PureControl()) == taken.entry.digest else UNSURE
    except OSError:
        return UNSURE


def overwrite(call: Call, fd: int, taken: Taken) -> None:
    """One write of the whole content, or of each 8 MiB of a large one. No cancel may stop it halfway."""
    if taken.data is not None:
        if os.pwrite(fd, taken.data, 0) != len(taken.data):
            raise OSError(errno.ENOSPC, "a short write")
        return
    assert taken.staged is not None
    at = 0
    with opened(open_file(call.options.staging, taken.staged)) as staged:
        while piece := os.pread(staged, BETWEEN_LOOKS, at):
            if os.pwrite(fd, piece, at) != len(piece):
                raise OSError(errno.ENOSPC, "a short write")
            at += len(piece)


def finish_torn(
    call: Call, dir_fd: int, path: bytes, taken: Taken, state: os.stat_result, error: OSError
) -> Fingerprint:
    """Replace a file that was overwritten in part. If that fails too, it is torn."""
    torn = Entry(Kind.FILE, fingerprint(state))
    try:
        return put_beside(call, dir_fd, path, taken, torn)
    except (Ended, Full, OSError) as second:
        number = second.number if isinstance(second, Ended | Full) else second.errno
        if isinstance(second, Full):
            call.outcomes.stopped = second.number
        raise Ended(Status.FAILED, number or error.errno or errno.EIO, "torn") from error


def put_direct(call: Call, dir_fd: int, path: bytes, taken: Taken) -> Fingerprint:
    """Create a small file under its own name: nobody reads the target yet."""
    at = name(path)
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with failing("write"):
        try:
            fd = os.open(at, flags, 0o600, dir_fd=dir_fd)
        except FileExistsError:
            raise Ended(Status.CHANGED) from None
    with opened(fd):
        try:
            with failing("write"):
                fill(call, fd, taken)
                give_attributes(call, fd, taken)
        except (Ended, Full):
            os.unlink(at, dir_fd=dir_fd)
            raise
        call.crash("publish-renamed")
        return holds(fd, taken)


def make_directory(call: Call, dir_fd: int, path: bytes, taken: Taken) -> Fingerprint:
    """Make a directory in which this user can work; a mode that forbids that is set at the end."""
    at = name(path)
    with failing("mkdir"):
        try:
            os.mkdir(at, 0o700, dir_fd=dir_fd)
        except FileExistsError:
            raise Ended(Status.CHANGED) from None
        call.crash("publish-mkdir")
        try:
            with opened(os.open(at, DIRECTORY, dir_fd=dir_fd)) as fd:
                give_attributes(call, fd, taken)
                mode = mirrored(taken.entry.seen.mode)
                os.chmod(via_proc(fd), mode | 0o700)
                if mode & 0o700 != 0o700:
                    call.actions.modes[path] = mode
                return fingerprint(os.fstat(fd))
        except OSError:
            with suppress(OSError):
                os.rmdir(at, dir_fd=dir_fd)
            raise
