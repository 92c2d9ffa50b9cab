"""The way to an entry of the target, and whether it is what the plan believed."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager

from syncd.kernel.contract import Status
from syncd.kernel.pure.aside import set_aside
from syncd.kernel.pure.call import Call, Ended
from syncd.kernel.pure.files import (
    ABSENT,
    DIRECTORY,
    Unreachable,
    directory,
    fingerprint,
    look,
    look_or_none,
    mirrored,
    obeys_modes,
    step,
    via_proc,
)
from syncd.kernel.pure.inplace import make_directory
from syncd.kernel.pure.take import Taken
from syncd.kernel.pure.tree import join, parts
from syncd.model.entry import Agreed, Entry, Fingerprint, Kind
from syncd.model.path import name, parent


def agreed(call: Call, path: bytes, taken: Taken, target: Fingerprint) -> Agreed:
    """The baseline's row after a put or record."""
    entry = taken.entry
    dropped = entry.seen.mode & (stat.S_ISUID | stat.S_ISGID)
    if dropped:
        call.outcomes.dropped.append((path, dropped))
    return Agreed(
        entry.kind,
        mirrored(entry.seen.mode),
        entry.seen.mtime_ns,
        entry.digest,
        entry.link,
        entry.seen,
        target,
        shared=entry.kind == Kind.FILE and taken.state.st_nlink > 1,
        mount=taken.mount,
    )


def as_believed(expected: Entry | None, now: Entry | None) -> bool:
    """Whether an entry is what the scan saw; of a directory only that it is one."""
    if expected is None or now is None:
        return expected is now
    if expected.kind != now.kind:
        return False
    return expected.kind == Kind.DIR or (expected.seen == now.seen and expected.link == now.link)


@contextmanager
def way(call: Call, path: bytes, make: bool) -> Iterator[int | None]:
    """The target's directory that holds `path`, opened. None if it is missing.

    `make`: missing ones are made, and links or files in their place set aside.
    """
    fd = os.open(b".", DIRECTORY, dir_fd=call.target.fd)
    try:
        reached = b""
        allow(call, fd, reached)
        for at in parts(parent(path)):
            reached = join(reached, at)
            try:
                fd = step(fd, at, reached)
            except Unreachable as error:
                if error.errno not in ABSENT:
                    raise
                if not make:
                    yield None
                    return
                make_way(call, fd, reached)
                fd = step(fd, at, reached)
            allow(call, fd, reached)
        yield fd
    finally:
        os.close(fd)


def make_way(call: Call, fd: int, path: bytes) -> None:
    """Make a directory on the way, as the source has it. What stands there otherwise is set aside.

    The baseline learns it: else, where the plan had another thing there, it would look like the container's.
    """
    try:
        with directory(call.source.fd, parent(path)) as source_fd:
            entry, state = look(source_fd, name(path))
            mount = state.st_dev != os.fstat(source_fd).st_dev
    except OSError as error:
        if error.errno in ABSENT:
            raise Ended(Status.VANISHED) from None
        raise
    if entry.kind != Kind.DIR:
        raise Ended(Status.VANISHED)
    if look_or_none(fd, name(path)) is not None:  # no directory, so no overlay lies in it
        call.outcomes.aside.append((path, set_aside(call, fd, name(path), path)))
    taken = Taken(entry, state, mount=mount)
    call.outcomes.learnt.append((path, agreed(call, path, taken, make_directory(call, fd, path, taken))))


def allow(call: Call, fd: int, path: bytes) -> None:
    """Let this user change a directory of his own that forbids it; its mode comes back at the end."""
    if obeys_modes():
        state = os.fstat(fd)
        if state.st_uid == os.geteuid() and state.st_mode & 0o700 != 0o700:
            os.chmod(via_proc(fd), stat.S_IMODE(state.st_mode) | 0o700)
            call.actions.modes.setdefault(path, stat.S_IMODE(state.st_mode))


def finish_modes(call: Call) -> None:
    """Give directories their final modes, and learn the fingerprints that these of this slice have then."""
    rows = {path: (index, row) for index, (path, row) in enumerate(call.outcomes.learnt)}
    for path, mode in sorted(call.actions.modes.items(), reverse=True):
        try:
            with directory(call.target.fd, path) as fd:
                os.chmod(via_proc(fd), mode)
                seen = fingerprint(os.fstat(fd))
        except OSError:
            continue  # it is gone, or of another kind: the next scan tells
        index, row = rows.get(path, (0, None))
        if row and row.kind == Kind.DIR:
            call.outcomes.learnt[index] = path, row._replace(target=seen)
    call.actions.modes.clear()


def refuse_overlay(call: Call, path: bytes, kind: Kind) -> None:
    """End the action if the entry that is to go holds an overlay. What is no directory holds none."""
    if kind == Kind.DIR and call.rules.overlay_within(path):
        raise Ended(Status.FAILED, errno.EBUSY, "overlay")
