"""Record: learn what both sides hold, after the target got the source's mode and mtime."""

from __future__ import annotations

import os
import stat
from dataclasses import replace

from syncd.kernel.contract import Status
from syncd.kernel.pure.beside import put_beside
from syncd.kernel.pure.call import Call, Ended, failing
from syncd.kernel.pure.control import PureControl
from syncd.kernel.pure.diff import Action
from syncd.kernel.pure.files import (
    ITSELF,
    clamp,
    fingerprint,
    hash_file,
    look_or_none,
    mirrored,
    open_to_read,
    opened,
    via_proc,
)
from syncd.kernel.pure.take import Taken, drop_staged, take_content
from syncd.kernel.pure.way import agreed, as_believed, way
from syncd.model.entry import Agreed, Entry, Fingerprint, Kind
from syncd.model.path import name


def record(call: Call, action: Action, taken: Taken | None) -> tuple[Status, Agreed | None]:
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
        reader = open_to_read(fd)
    except PermissionError:
        return True
    with opened(reader):
        return hash_file(reader, PureControl()) == digest
