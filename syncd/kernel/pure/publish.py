"""Publish: carry out one action in the target, after a look whether it is what the plan believed."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from syncd.kernel.contract import Status
from syncd.kernel.pure.aside import drop_ours, join_paths, list_names, put_back, set_aside
from syncd.kernel.pure.beside import Fresh, fresh_entry, give_name, put_beside
from syncd.kernel.pure.call import Call, Ended, Full, failing
from syncd.kernel.pure.diff import Action
from syncd.kernel.pure.files import (
    ABSENT,
    DIRECTORY,
    ITSELF,
    Unreachable,
    clamp,
    directory,
    fingerprint,
    look,
    look_or_none,
    mirrored,
    opened,
    step,
    via_proc,
)
from syncd.kernel.pure.inplace import make_directory, may_be_in_place, put_direct, put_in_place
from syncd.kernel.pure.take import Taken, drop_staged, take_content
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
    user = os.geteuid()
    if user != 0:
        state = os.fstat(fd)
        if state.st_uid == user and state.st_mode & 0o700 != 0o700:
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
            refuse_overlay(call, path, now.kind)
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
            if found[0].kind == Kind.DIR and holds_excluded(call, fd, path):
                return Status.KEPT, None  # what is in it goes by its own rows
            refuse_overlay(call, path, found[0].kind)
            call.outcomes.aside.append((path, set_aside(call, fd, name(path), path)))
        elif found[0].kind == Kind.DIR:
            return remove_directory(call, fd, path)
        else:
            os.unlink(name(path), dir_fd=fd)
            call.crash("publish-removed")
        call.outcomes.removed += 1
        return Status.DONE, None


def holds_excluded(call: Call, fd: int, path: bytes) -> bool:
    """Whether a directory of the target holds, at any depth, an ignored name or an overlay: these are not moved."""
    pending = [b""]
    while pending:
        inner = pending.pop()
        with directory(fd, join_paths(name(path), inner)) as here:
            for child in list_names(here):
                entry, _ = look(here, child)
                below = join(inner, child)
                if call.rules.excluded(join_paths(path, below), entry.kind == Kind.DIR):
                    return True
                if entry.kind == Kind.DIR:
                    pending.append(below)
    return False


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
            if state.st_nlink > 1 and found[0].kind != Kind.DIR and metadata_differs(state, taken.entry):
                seen = part(call, fd, path, taken, found[0])
            else:
                seen = write_metadata(at, state, taken.entry)
    return Status.SAME, agreed(call, path, taken, seen)


def part(call: Call, fd: int, path: bytes, taken: Taken, old: Entry) -> Fingerprint:
    """Put a file anew whose other hard links, which may be anywhere, must not get its mode and time."""
    if old.kind == Kind.FILE and taken.data is None and taken.staged is None:
        content = take_content(call, path)
        if content.entry.digest != taken.entry.digest:
            drop_staged(call, content.staged)
            raise Ended(Status.CHANGED)
        taken = replace(taken, data=content.data, staged=content.staged)
    return put_beside(call, fd, path, taken, old)


def metadata_differs(state: os.stat_result, entry: Entry) -> bool:
    """Whether the mode or the mtime of a file or link is another than the source's."""
    other_mode = entry.kind != Kind.LINK and stat.S_IMODE(state.st_mode) != mirrored(entry.seen.mode)
    return other_mode or clamp(state.st_mtime_ns) != entry.seen.mtime_ns


def write_metadata(fd: int, state: os.stat_result, entry: Entry) -> Fingerprint:
    """Write mode and mtime where they differ. Ended if the content seems to be written meanwhile."""
    mode = mirrored(entry.seen.mode)
    sets_time = entry.kind != Kind.DIR and clamp(state.st_mtime_ns) != entry.seen.mtime_ns
    if entry.kind != Kind.LINK and stat.S_IMODE(state.st_mode) != mode:
        os.chmod(via_proc(fd), mode)
    if sets_time:
        os.utime(via_proc(fd), ns=(state.st_atime_ns, entry.seen.mtime_ns))
    after = os.fstat(fd)
    written = after.st_size != state.st_size or (not sets_time and after.st_mtime_ns != state.st_mtime_ns)
    if entry.kind == Kind.FILE and written:
        raise Ended(Status.CHANGED)
    return fingerprint(after)
