"""Write one new entry: beside and renamed over, in place, or as a directory."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from syncd.kernel.contract import Status
from syncd.kernel.pure.aside import alike, set_aside
from syncd.kernel.pure.call import SMALL, Call, Ended, Full, failing
from syncd.kernel.pure.diff import Action, equal
from syncd.kernel.pure.files import (
    BETWEEN_LOOKS,
    DIRECTORY,
    ITSELF,
    fingerprint,
    look,
    mirrored,
    open_file,
    opened,
    probe,
    via_proc,
    write_all,
)
from syncd.kernel.pure.take import Taken, copy, drop_staged, new_file
from syncd.model.entry import Entry, Fingerprint, Kind
from syncd.model.path import name
from syncd.system import libc

WRITING = os.O_WRONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(slots=True)
class Fresh:
    """A finished entry under a temporary name, held open."""

    dir_fd: int
    name: bytes
    fd: int


# --- beside -------------------------------------------------------------------------------------------


def put_beside(call: Call, dir_fd: int, path: bytes, taken: Taken, old: Entry | None) -> Fingerprint:
    """Make a file or link whole under a temporary name, then give it its own in one step."""
    try:
        with fresh_entry(call, call.options.staging, b"new", taken) as fresh:
            return give_name(call, dir_fd, path, fresh, old)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
    with fresh_entry(call, dir_fd, b".syncd", taken) as fresh:
        return give_name(call, dir_fd, path, fresh, old)


@contextmanager
def fresh_entry(call: Call, dir_fd: int, prefix: bytes, taken: Taken) -> Iterator[Fresh]:
    """The new entry under a temporary name; if it still has that at the end, it is removed."""
    with failing("write"):
        if taken.entry.kind == Kind.LINK:
            text = taken.entry.link or b""
            temporary = call.temporary(prefix, lambda free: os.symlink(text, free, dir_fd=dir_fd))
            fd = os.open(temporary, ITSELF, dir_fd=dir_fd)
        elif taken.staged is not None and dir_fd == call.options.staging:
            temporary = taken.staged
            fd = os.open(temporary, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=dir_fd)
            call.staged.discard(temporary)
        else:
            temporary, fd = new_file(call, dir_fd, prefix)
    with opened(fd):
        before = os.fstat(fd).st_ino
        try:
            with failing("write"):
                if taken.entry.kind == Kind.FILE and temporary != taken.staged:
                    fill(call, fd, taken)
                give_attributes(call, fd, taken)
            yield Fresh(dir_fd, temporary, fd)
        except OSError as error:
            if error.errno == errno.EXDEV and temporary == taken.staged:
                call.staged.add(temporary)  # its content is needed once more
            raise
        finally:
            if temporary not in call.staged:
                with suppress(OSError):
                    if os.stat(temporary, dir_fd=dir_fd, follow_symlinks=False).st_ino == before:
                        os.unlink(temporary, dir_fd=dir_fd)


def fill(call: Call, fd: int, taken: Taken) -> None:
    """Write the taken content into an empty file."""
    if taken.data is not None:
        write_all(fd, taken.data)
        return
    assert taken.staged is not None
    with opened(open_file(call.options.staging, taken.staged)) as staged:
        copy(staged, fd, taken.entry.seen.size, call.control)


def give_attributes(call: Call, fd: int, taken: Taken) -> None:
    """Owner, then mode (a change of owner would clear bits), then mtime."""
    now = os.fstat(fd)
    owner = wanted_owner(call, taken)
    if owner is not None and owner != (now.st_uid, now.st_gid):
        try:
            os.chown(via_proc(fd), *owner)
        except OSError as error:
            # An owner that this user namespace does not have: only one that was asked for by name matters.
            if call.options.owner or error.errno not in (errno.EPERM, errno.EINVAL):
                raise
    if taken.entry.kind == Kind.LINK:
        os.utime(via_proc(fd), ns=(now.st_atime_ns, taken.entry.seen.mtime_ns))
    elif taken.entry.kind == Kind.FILE:
        os.chmod(via_proc(fd), mirrored(taken.entry.seen.mode))
        os.utime(fd, ns=(now.st_atime_ns, taken.entry.seen.mtime_ns))


def wanted_owner(call: Call, taken: Taken) -> tuple[int, int] | None:
    if call.options.owner is not None:
        return call.options.owner
    return (taken.state.st_uid, taken.state.st_gid) if os.geteuid() == 0 else None


def give_name(call: Call, dir_fd: int, path: bytes, fresh: Fresh, old: Entry | None) -> Fingerprint:
    """Give a fresh entry its name. `old` is what stands there, which is kept if it is another by now.

    Raises OSError (EXDEV) if the temporary name is on another mount; nothing was touched then.
    """
    if old is None:
        try:
            libc.rename_new(fresh.dir_fd, fresh.name, dir_fd, name(path))
        except FileExistsError:
            raise Ended(Status.CHANGED) from None
        except OSError as error:
            raise_but_exdev(error)
    else:
        kept = keep_old(call, dir_fd, path, fresh, old)
        finish_old(call, dir_fd, path, fresh.dir_fd, kept, old)
    return fingerprint(os.fstat(fresh.fd))


def raise_but_exdev(error: OSError) -> None:
    if error.errno == errno.EXDEV:
        raise error
    with failing("write"):
        raise error


def keep_old(call: Call, dir_fd: int, path: bytes, fresh: Fresh, old: Entry) -> bytes:
    """Link the old entry to a second name, then rename the fresh one over it. Returns the second name.

    Where links are refused the old entry is renamed away first: for a moment the name is not there.
    """
    prefix = b"old" if fresh.dir_fd == call.options.staging else b".syncd"
    at = name(path)

    def link(free: bytes) -> None:
        os.link(at, free, src_dir_fd=dir_fd, dst_dir_fd=fresh.dir_fd, follow_symlinks=False)

    try:
        kept = call.temporary(prefix, link)
    except OSError as error:
        if error.errno in (errno.EXDEV, errno.ENOENT):
            raise_gone_or_exdev(error)
        return move_old(call, dir_fd, path, fresh, prefix, old)
    try:
        call.crash("publish-linked")
        with failing("write"):
            if not alike(look(fresh.dir_fd, kept)[0].seen, old.seen):
                raise Ended(Status.CHANGED)
            os.rename(fresh.name, at, src_dir_fd=fresh.dir_fd, dst_dir_fd=dir_fd)
    except (Ended, Full):
        os.unlink(kept, dir_fd=fresh.dir_fd)  # the entry still has its own name
        raise
    call.crash("publish-renamed")
    return kept


def raise_gone_or_exdev(error: OSError) -> None:
    if error.errno == errno.ENOENT:
        raise Ended(Status.CHANGED) from None
    raise error


def move_old(call: Call, dir_fd: int, path: bytes, fresh: Fresh, prefix: bytes, old: Entry) -> bytes:
    at = name(path)
    with failing("write"):
        kept = call.temporary(prefix, lambda free: libc.rename_new(dir_fd, at, fresh.dir_fd, free))
    call.crash("publish-linked")
    try:
        with failing("write"):
            if not alike(look(fresh.dir_fd, kept)[0].seen, old.seen):
                raise Ended(Status.CHANGED)
            libc.rename_new(fresh.dir_fd, fresh.name, dir_fd, at)
    except (Ended, Full):
        try:
            libc.rename_new(fresh.dir_fd, kept, dir_fd, at)
        except OSError:
            call.outcomes.aside.append((path, set_aside(call, fresh.dir_fd, kept, path)))
        raise
    call.crash("publish-renamed")
    return kept


def finish_old(call: Call, dir_fd: int, path: bytes, kept_fd: int, kept: bytes, old: Entry) -> None:
    """Drop the old entry if it is what it was, else set it aside; if that fails it gets its name back."""
    with failing("write"):
        if alike(look(kept_fd, kept)[0].seen, old.seen):
            os.unlink(kept, dir_fd=kept_fd)
            return
    try:
        call.outcomes.aside.append((path, set_aside(call, kept_fd, kept, path)))
    except (Ended, Full):
        os.rename(kept, name(path), src_dir_fd=kept_fd, dst_dir_fd=dir_fd)
        raise


# --- in place -----------------------------------------------------------------------------------------


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
    size = taken.entry.seen.size
    try:
        with opened(open_file(dir_fd, at)) as reader:
            if probe(reader) != 0 or fingerprint(os.fstat(reader)) != old.seen:
                return None
        fd = os.open(at, WRITING, dir_fd=dir_fd)
    except OSError:
        return None
    with opened(fd):
        if fingerprint(os.fstat(fd)) != old.seen:
            return None
        if size > old.seen.size:
            try:
                libc.reserve(fd, size)
            except OSError:
                return None
        try:
            overwrite(call, fd, taken)
            call.crash("publish-inplace")
            if size < old.seen.size:
                os.ftruncate(fd, size)
            os.utime(fd, ns=(os.fstat(fd).st_atime_ns, taken.entry.seen.mtime_ns))
            return fingerprint(os.fstat(fd))
        except OSError as error:
            return finish_torn(call, dir_fd, path, taken, os.fstat(fd), error)


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


# --- under the final name -----------------------------------------------------------------------------


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
        return fingerprint(os.fstat(fd))


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


