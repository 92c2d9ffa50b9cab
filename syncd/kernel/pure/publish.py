"""Publish: carry out one action in the target, after a look whether it is what the plan believed."""

from __future__ import annotations

import errno
import os

from syncd.kernel.contract import Status
from syncd.kernel.pure.aside import alike, drop_link, drop_ours, join_paths, link_aside, list_names, put_back, set_aside
from syncd.kernel.pure.beside import UNSURE, Fresh, fresh_entry, give_name, is_written, put_beside
from syncd.kernel.pure.call import Call, Ended, Full, failing
from syncd.kernel.pure.diff import Action
from syncd.kernel.pure.files import (
    directory,
    fingerprint,
    look,
    look_or_none,
)
from syncd.kernel.pure.inplace import make_directory, may_be_in_place, put_direct, put_in_place
from syncd.kernel.pure.record import record
from syncd.kernel.pure.take import Taken
from syncd.kernel.pure.tree import join
from syncd.kernel.pure.way import agreed, as_believed, refuse_overlay, way
from syncd.model.entry import Agreed, Fingerprint, Kind
from syncd.model.path import is_within, name
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
            if action.verb is Verb.REPLACE and (linked := link_old(call, fd, action)) is not None:
                return put_onto(call, fd, action, fresh, linked)
            kept = set_aside(call, fd, name(path), path)
            seen = or_back(call, fd, path, kept, fresh, taken)
    if action.verb is Verb.REPLACE or not drop_ours(call, kept, path):
        call.outcomes.aside.append((path, kept))
    return seen


def link_old(call: Call, fd: int, action: Action) -> bytes | None:
    """A second name for the old entry; None if it can have none. At each moment one of the two is at its name then."""
    path, target = action.row.path, action.row.target
    if target is None or target.kind not in (Kind.FILE, Kind.LINK) or call.options.direct:
        return None
    return link_aside(call, fd, name(path), path)


def put_onto(call: Call, fd: int, action: Action, fresh: Fresh, kept: bytes) -> Fingerprint:
    """Rename a fresh entry over the old one, which is kept."""
    path, expected = action.row.path, action.row.target
    assert expected is not None
    try:
        with failing("write"):
            found = look_or_none(fd, name(path))
            if found is None or not alike(found[0].seen, expected.seen):
                raise Ended(Status.CHANGED)
            written = fingerprint(os.fstat(fresh.fd))
            os.rename(fresh.name, name(path), src_dir_fd=fresh.dir_fd, dst_dir_fd=fd)
    except (Ended, Full):
        drop_link(call, kept)
        raise
    call.crash("publish-renamed")
    call.outcomes.aside.append((path, kept))
    now = fingerprint(os.fstat(fresh.fd))
    return now if alike(written, now) else UNSURE


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
        # What somebody writes later into a file that he holds open must not vanish with it.
        held = found[0].kind == Kind.FILE and is_written(fd, name(path))
        if action.verb is not Verb.REMOVE or held:
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
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST) or any(
            is_within(each, path) for each in call.actions.undone
        ):
            raise
        return Status.KEPT, None
    call.crash("publish-removed")
    call.outcomes.removed += 1
    call.actions.modes.pop(path, None)
    return Status.DONE, None
