"""Set aside: move an entry out of the target into a directory where a person finds it again."""

from __future__ import annotations

import errno
import itertools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from syncd.kernel.pure.call import Call, failing
from syncd.kernel.pure.files import (
    DIRECTORY,
    Cancelled,
    directory,
    hash_file,
    look,
    look_or_none,
    obeys_modes,
    open_file,
    opened,
    steadily,
    step,
    via_proc,
)
from syncd.kernel.pure.tree import join, parts
from syncd.model.entry import Agreed, Entry, Fingerprint, Kind
from syncd.model.path import ancestors, name, parent
from syncd.system import libc

LONGEST_NAME = 255


def numbered(wanted: bytes) -> Iterator[bytes]:
    """`wanted`, then `wanted.1`, `wanted.2` …; cut where a name would grow too long."""
    yield wanted
    for number in itertools.count(1):
        end = b".%d" % number
        yield wanted[: LONGEST_NAME - len(end)] + end


def set_aside(call: Call, dir_fd: int, old_name: bytes, path: bytes) -> bytes:
    """Rename an entry into `aside`, under the path it had. Returns where it is below staging.

    Raises Ended or Full, and then the entry is where it was.
    """
    with failing("aside"):
        return _give(call, path, lambda fd, free: libc.rename_new(dir_fd, old_name, fd, free))


def link_aside(call: Call, dir_fd: int, old_name: bytes, path: bytes) -> bytes | None:
    """The same for a file or link, which keeps its name until something is renamed over it. None: it takes no link."""

    def link(fd: int, free: bytes) -> None:
        os.link(old_name, free, src_dir_fd=dir_fd, dst_dir_fd=fd, follow_symlinks=False)

    try:
        return _give(call, path, link)
    except OSError:
        return None


def _give(call: Call, path: bytes, give: Callable[[int, bytes], object]) -> bytes:
    """Have an entry given a free name in `aside`, where its path says."""
    with aside_directory(call, parent(path)) as (aside_fd, kept):
        for candidate in numbered(name(path)):
            try:
                give(aside_fd, candidate)
            except FileExistsError:
                continue
            call.crash("publish-aside")
            return join(kept, candidate)
    raise AssertionError("numbers do not end")


def drop_link(call: Call, kept: bytes) -> None:
    """Take the second name away again that `link_aside` gave, and the directories that were made for it."""
    with suppress(OSError), directory(call.options.staging, parent(kept)) as fd:
        os.unlink(name(kept), dir_fd=fd)
        drop_empty(call, kept)


@contextmanager
def aside_directory(call: Call, path: bytes) -> Iterator[tuple[int, bytes]]:
    """The directory in `aside` for what lay in a directory of the target: a descriptor and its path."""
    fd = os.open(b".", DIRECTORY, dir_fd=call.options.staging)
    kept = b""
    try:
        for wanted in (*parts(call.options.aside), *parts(path)):
            for candidate in numbered(wanted):
                with suppress(FileExistsError):
                    os.mkdir(candidate, 0o700, dir_fd=fd)
                try:
                    fd = step(fd, candidate, candidate)
                except OSError as error:
                    if error.errno not in (errno.ENOTDIR, errno.ELOOP):
                        raise
                    continue  # a file that was set aside has the name
                kept = join(kept, candidate)
                break
        yield fd, kept
    finally:
        os.close(fd)


def put_back(call: Call, kept: bytes, dir_fd: int, old_name: bytes) -> bool:
    """Undo `set_aside`, unless something new stands at the name by now."""
    try:
        with directory(call.options.staging, parent(kept)) as fd:
            libc.rename_new(fd, name(kept), dir_fd, old_name)
    except OSError:
        return False
    return True


def alike(seen: Fingerprint, now: Fingerprint) -> bool:
    """Whether an entry that was linked or renamed, which changes its ctime, is otherwise as it was."""
    return seen._replace(ctime_ns=0) == now._replace(ctime_ns=0)


def drop_ours(call: Call, kept: bytes, path: bytes) -> bool:
    """Drop from what was set aside all that the baseline has and nobody changed. True if all went."""
    with suppress(OSError), directory(call.options.staging, parent(kept)) as fd:
        entry = look(fd, name(kept))[0]
        if entry.kind == Kind.DIR:
            drop_below(call, kept, path)
        elif is_ours(call, fd, name(kept), entry, call.base.get(path)):
            os.unlink(name(kept), dir_fd=fd)
        if look_or_none(fd, name(kept)) is not None:
            return False
    drop_empty(call, kept)
    return True


def drop_empty(call: Call, kept: bytes) -> None:
    """Remove the directories above an entry that is gone: they were made for it only, unless they hold others."""
    for above in ancestors(kept):
        try:
            with directory(call.options.staging, parent(above)) as fd:
                os.rmdir(name(above), dir_fd=fd)
        except OSError:
            break


def drop_below(call: Call, kept: bytes, path: bytes) -> None:
    """The files of a directory set aside, then its directories from the deepest up, then itself."""
    walked = []
    pending = [b""]
    while pending:
        inner = pending.pop()
        walked.append(inner)
        with suppress(OSError), directory(call.options.staging, join_paths(kept, inner)) as fd:
            make_writable(fd)
            for child in list_names(fd):
                below = join(inner, child)
                entry, _ = look(fd, child)
                agreed = call.base.get(join_paths(path, below))
                if call.rules.excluded(join_paths(path, below), entry.kind == Kind.DIR):
                    continue
                if entry.kind == Kind.DIR:
                    pending.append(below)
                elif is_ours(call, fd, child, entry, agreed):
                    os.unlink(child, dir_fd=fd)
    for inner in reversed(walked):
        agreed = call.base.get(join_paths(path, inner))
        whole = join_paths(kept, inner)
        if agreed and agreed.kind == Kind.DIR:
            with suppress(OSError), directory(call.options.staging, parent(whole)) as fd:
                os.rmdir(name(whole), dir_fd=fd)


def is_ours(call: Call, dir_fd: int, at: bytes, entry: Entry, agreed: Agreed | None) -> bool:
    """Whether an entry that is no directory is what the baseline has: by its looks, else by its bytes."""
    if agreed is None or agreed.kind != entry.kind:
        return False
    if entry.kind == Kind.LINK:
        return entry.link == agreed.link
    if entry.kind != Kind.FILE or entry.seen.size != agreed.target.size:
        return False
    if alike(entry.seen, agreed.target) and entry.seen.ctime_ns == agreed.target.ctime_ns:
        return True
    try:
        with opened(open_file(dir_fd, at, entry.seen)) as file:
            return steadily(file, lambda: hash_file(file, call.control), call.control).digest == agreed.digest
    except (OSError, Cancelled):
        return False


def make_writable(fd: int) -> None:
    """Let the owner, if that is this user, change a directory."""
    state = os.fstat(fd)
    if obeys_modes() and os.geteuid() == state.st_uid and state.st_mode & 0o700 != 0o700:
        os.chmod(via_proc(fd), (state.st_mode & 0o7777) | 0o700)


def list_names(fd: int) -> list[bytes]:
    with opened(os.open(b".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=fd)) as listing:
        return [os.fsencode(each) for each in os.listdir(listing)]


def join_paths(top: bytes, inner: bytes) -> bytes:
    return top + b"/" + inner if top and inner else top or inner
