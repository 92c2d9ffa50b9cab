"""Publish: carry out one action in the target, after a look whether it is what the plan believed."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager

from syncd.kernel.contract import Status
from syncd.kernel.pure.aside import drop_ours, put_back, set_aside
from syncd.kernel.pure.beside import Fresh, fresh_entry, give_name, put_beside
from syncd.kernel.pure.call import Call, Ended, Full, failing
from syncd.kernel.pure.control import PureControl
from syncd.kernel.pure.diff import Action
from syncd.kernel.pure.files import (
    ABSENT,
    DIRECTORY,
    ITSELF,
    Unreachable,
    clamp,
    directory,
    fingerprint,
    hash_file,
    look,
    look_or_none,
    mirrored,
    opened,
    step,
    via_proc,
)
from syncd.kernel.pure.inplace import make_directory, may_be_in_place, put_direct, put_in_place
from syncd.kernel.pure.take import Taken
from syncd.kernel.pure.tree import join, parts
from syncd.model.entry import Agreed, Entry, Fingerprint, Kind
from syncd.model.path import name, parent
from syncd.model.plan import Verb

Learnt = tuple[Status, Agreed | None]


def publish(call: Call, action: Action, taken: Taken | None) -> Learnt:
    """How the action ended, and the row that the baseline learns (None: drop it). Raises Ended, Full."""
    if action.verb is Verb.RECORD or (taken and taken.same):
        return record(call, action, taken)
    if taken is None:
        return remove(call, action)
    seen = put(call, action, taken)
    call.outcomes.puts += 1
    call.outcomes.bytes += taken.entry.seen.size if taken.entry.kind == Kind.FILE else 0
    return Status.DONE, agreed(call, action.row.path, taken, seen)


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


# --- the way to an entry ------------------------------------------------------------------------------


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
    """Make a directory on the way, as the source has it. What stands there otherwise is set aside."""
    try:
        with directory(call.source.fd, parent(path)) as source_fd:
            entry, state = look(source_fd, name(path))
    except OSError as error:
        if error.errno in ABSENT:
            raise Ended(Status.VANISHED) from None
        raise
    if entry.kind != Kind.DIR:
        raise Ended(Status.VANISHED)
    if look_or_none(fd, name(path)) is not None:
        refuse_overlay(call, path)
        call.outcomes.aside.append((path, set_aside(call, fd, name(path), path)))
    make_directory(call, fd, path, Taken(entry, state))


def allow(call: Call, fd: int, path: bytes) -> None:
    """Let this user change a directory of his own that forbids it; its mode comes back at the end."""
    user = os.geteuid()
    if user != 0:
        state = os.fstat(fd)
        if state.st_uid == user and state.st_mode & 0o700 != 0o700:
            os.chmod(via_proc(fd), stat.S_IMODE(state.st_mode) | 0o700)
            call.actions.modes.setdefault(path, stat.S_IMODE(state.st_mode))


def finish_modes(call: Call) -> None:
    """Give directories their final modes, and learn the fingerprints that these of this slice have then."""
    rows = {path: (index, row) for index, (path, row) in call.outcomes.learnt.items()}
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


def refuse_overlay(call: Call, path: bytes) -> None:
    if call.rules.overlay_within(path):
        raise Ended(Status.FAILED, errno.EBUSY, "overlay")


# --- the verbs ----------------------------------------------------------------------------------------


def put(call: Call, action: Action, taken: Taken) -> Fingerprint:
    """Make the target hold what was taken."""
    path, _, _, expected = action.row
    with failing("write"), way(call, path, make=True) as fd:
        assert fd is not None
        found = look_or_none(fd, name(path))
        now = found[0] if found else None
        if not as_believed(expected, now):
            raise Ended(Status.CHANGED)
        if found and now and (action.verb is Verb.REPLACE or Kind.DIR in (now.kind, taken.entry.kind)):
            return put_aside(call, fd, action, taken)
        if taken.entry.kind == Kind.DIR:
            return make_directory(call, fd, path, taken)
        if found and now and may_be_in_place(call, action, taken, found[1]):
            seen = put_in_place(call, fd, path, taken, now)
            if seen:
                return seen
        if now is None and call.options.direct and taken.data is not None:
            return put_direct(call, fd, path, taken)
        return put_beside(call, fd, path, taken, now)


def put_aside(call: Call, fd: int, action: Action, taken: Taken) -> Fingerprint:
    """Set the old entry aside, with all it holds, and make the new one.

    For a change of kind what is the baseline's own is dropped from there afterwards. If the new one cannot
    be made the old one gets its name back.
    """
    path = action.row.path
    refuse_overlay(call, path)
    if taken.entry.kind == Kind.DIR:
        kept = set_aside(call, fd, name(path), path)
        seen = or_back(call, fd, path, kept, None, taken)
    else:
        # Written whole before the old entry moves.
        with fresh_entry(call, call.options.staging, b"new", taken) as fresh:
            kept = set_aside(call, fd, name(path), path)
            seen = or_back(call, fd, path, kept, fresh, taken)
    if action.verb is Verb.REPLACE or not drop_ours(call, kept, path):
        call.outcomes.aside.append((path, kept))
    return seen


def or_back(call: Call, fd: int, path: bytes, kept: bytes, fresh: Fresh | None, taken: Taken) -> Fingerprint:
    try:
        if fresh is None:
            return make_directory(call, fd, path, taken)
        return give_name(call, fd, path, fresh, None)
    except (Ended, Full, OSError):
        if not put_back(call, kept, fd, name(path)):
            call.outcomes.aside.append((path, kept))
        raise


def remove(call: Call, action: Action) -> Learnt:
    """Remove, or with REPLACE set aside, what the scan saw. What is gone already is as planned."""
    path, _, _, expected = action.row
    with failing("remove"), way(call, path, make=False) as fd:
        found = look_or_none(fd, name(path)) if fd is not None else None
        if fd is None or found is None:
            return Status.DONE, None
        if not as_believed(expected, found[0]):
            raise Ended(Status.CHANGED)
        if action.verb is not Verb.REMOVE:
            refuse_overlay(call, path)
            call.outcomes.aside.append((path, set_aside(call, fd, name(path), path)))
        elif found[0].kind == Kind.DIR:
            return remove_directory(call, fd, path)
        else:
            os.unlink(name(path), dir_fd=fd)
            call.crash("publish-removed")
        call.outcomes.removed += 1
        return Status.DONE, None


def remove_directory(call: Call, fd: int, path: bytes) -> Learnt:
    try:
        os.rmdir(name(path), dir_fd=fd)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            return Status.KEPT, None
        raise
    call.crash("publish-removed")
    call.outcomes.removed += 1
    call.actions.modes.pop(path, None)
    return Status.DONE, None


def record(call: Call, action: Action, taken: Taken | None) -> Learnt:
    """Learn both fingerprints, after the target got the source's mode and mtime."""
    path, _, _, expected = action.row
    with failing("record"), way(call, path, make=False) as fd:
        found = look_or_none(fd, name(path)) if fd is not None else None
        if taken is None and (found is None or call.rules.excluded(path, found[0].kind == Kind.DIR)):
            return Status.SAME, None  # gone on both sides, or newly ignored: then it stays where it is
        if fd is None or taken is None or found is None or not as_believed(expected, found[0]):
            raise Ended(Status.CHANGED)
        with opened(os.open(name(path), ITSELF, dir_fd=fd)) as at:
            state = os.fstat(at)
            if fingerprint(state) != found[0].seen:
                raise Ended(Status.CHANGED)
            seen = write_metadata(at, state, taken.entry)
    return Status.SAME, agreed(call, path, taken, seen)


def write_metadata(fd: int, state: os.stat_result, entry: Entry) -> Fingerprint:
    """Write mode and mtime where they differ. Ended if somebody wrote the content meanwhile.

    Setting the mtime would hide that, so the content is read once more then.
    """
    mode = mirrored(entry.seen.mode)
    sets_time = entry.kind != Kind.DIR and clamp(state.st_mtime_ns) != entry.seen.mtime_ns
    if entry.kind != Kind.LINK and stat.S_IMODE(state.st_mode) != mode:
        os.chmod(via_proc(fd), mode)
    if sets_time:
        os.utime(via_proc(fd), ns=(state.st_atime_ns, entry.seen.mtime_ns))
    after = os.fstat(fd)
    if entry.kind == Kind.FILE:
        written = after.st_size != state.st_size or (not sets_time and after.st_mtime_ns != state.st_mtime_ns)
        if written or (sets_time and not reads_as(fd, entry.digest)):
            raise Ended(Status.CHANGED)
    return fingerprint(after)


def reads_as(fd: int, digest: bytes | None) -> bool:
    """Whether the file of an O_PATH descriptor has that content. One that may not be read is believed."""
    try:
        reader = os.open(via_proc(fd), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except PermissionError:
        return True
    with opened(reader):
        return hash_file(reader, PureControl()) == digest
