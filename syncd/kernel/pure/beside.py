"""Beside: a file or link made whole under a temporary name, then renamed over the old one."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from syncd.kernel.contract import Status
from syncd.kernel.pure.aside import alike, set_aside
from syncd.kernel.pure.call import Call, Ended, Full, failing
from syncd.kernel.pure.files import (
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
from syncd.kernel.pure.take import Taken, copy, new_file
from syncd.model.entry import Entry, Fingerprint, Kind
from syncd.model.path import name
from syncd.system import libc

UNSURE = Fingerprint(0, 0, 0, 0, 0)  # equal to none, so that the next scan is in doubt


@dataclass(slots=True)
class Fresh:
    """A finished entry under a temporary name, held open."""

    dir_fd: int
    name: bytes
    fd: int


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

    Returns the new entry's fingerprint, or UNSURE if somebody wrote it as soon as it had its name.
    Raises OSError (EXDEV) if the temporary name is on another mount; nothing was touched then.
    """
    written = fingerprint(os.fstat(fresh.fd))
    if old is None:
        try:
            libc.rename_new(fresh.dir_fd, fresh.name, dir_fd, name(path))
        except FileExistsError:
            raise Ended(Status.CHANGED) from None
        except OSError as error:
            raise_but_exdev(error)
        call.crash("publish-renamed")
    else:
        kept = keep_old(call, dir_fd, path, fresh, old)
        finish_old(call, dir_fd, path, fresh.dir_fd, kept, old)
    now = fingerprint(os.fstat(fresh.fd))
    return now if alike(written, now) else UNSURE


def is_written(dir_fd: int, at: bytes) -> bool:
    """Whether somebody holds a file open for writing: what is written there later must not vanish with it."""
    try:
        with opened(open_file(dir_fd, at)) as fd:
            return probe(fd) == errno.EAGAIN
    except OSError:
        return False  # no file, or one that may not be read


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
    """Drop the old entry if it is what it was and will stay so, else set it aside; if that fails it gets its name back."""
    with failing("write"):
        if alike(look(kept_fd, kept)[0].seen, old.seen) and not is_written(kept_fd, kept):
            os.unlink(kept, dir_fd=kept_fd)
            return
    try:
        call.outcomes.aside.append((path, set_aside(call, kept_fd, kept, path)))
    except (Ended, Full):
        os.rename(kept, name(path), src_dir_fd=kept_fd, dst_dir_fd=dir_fd)
        raise
