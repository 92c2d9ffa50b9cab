"""Where unfinished and set-aside files live: a directory that shares a mount with the target.

The first of three places that a trial rename proves: the pair's state directory, a sibling
`.NAME.syncd` of the target, `.syncd` inside it (always ignored). Below it stand `new-N`, `old-N` and `olds-N/old-N`
while a call runs, and `conflicts/<UTC time>-<cycle>/` for what was set aside, never pruned unasked.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import stat
import time
from collections.abc import Callable
from pathlib import Path

from syncd.errors import SyncdError, TargetBusy
from syncd.system import flocks

CONFLICTS = "conflicts"
ASIDE = CONFLICTS + "/%Y%m%dT%H%M%SZ"  # for strftime, in UTC; the number of the cycle follows


class Staging:
    """An open staging directory. `where` is its path."""

    def __init__(self, where: Path, fd: int) -> None:
        self.where = where
        self.fd = fd

    def close(self) -> None:
        """Close the descriptor; leave no empty directory behind inside or beside the target, unless another uses it."""
        if self.fd < 0:
            return
        if self.where.name.endswith(".syncd") and flocks.take(self.fd):
            with contextlib.suppress(OSError):  # something is kept in it
                if os.path.samestat(os.fstat(self.fd), self.where.lstat()):
                    self.where.rmdir()
        os.close(self.fd)
        self.fd = -1

    def aside(self, cycle: int, now: float) -> bytes:
        """The name, below staging, under which cycle number `cycle` at time `now` sets aside."""
        return f"{time.strftime(ASIDE, time.gmtime(now))}-{cycle}".encode()


def places(state: Path, target: Path, kind: str = "") -> tuple[Path, ...]:
    """The directories that can be a target's staging, best first. `kind` ".pull": of what is pulled into it."""
    return state / "staging", target.parent / f".{target.name}{kind}.syncd", target / f"{kind}.syncd"


def kept(place: Path) -> list[tuple[str, bytes]]:
    """(set-aside directory, path in it) of every file and link kept below a staging directory, oldest first."""
    top = os.fsencode(place / CONFLICTS)
    found = []
    for directory, below, names in sorted(os.walk(top)):
        links = [name for name in below if os.path.islink(os.path.join(directory, name))]
        for name in sorted(names + links):
            batch, _, path = os.path.relpath(os.path.join(directory, name), top).partition(b"/")
            found.append((os.fsdecode(batch), path))
    return found


def hold_staging(state: Path, target: Path, target_fd: int, kind: str = "") -> Staging:
    """`open_staging`, held against every other process until it is closed. Raises TargetBusy, too."""
    while True:
        staging = open_staging(state, target, target_fd, kind)
        if not flocks.take_soon(staging.fd):
            where = staging.where
            staging.close()
            raise TargetBusy(
                f"another process writes into {target} and keeps unfinished files in {where}; wait for its end"
            )
        if os.fstat(staging.fd).st_nlink:
            return staging
        staging.close()  # whoever had it took it away meanwhile


def open_staging(state: Path, target: Path, target_fd: int, kind: str = "") -> Staging:
    """Find and open the staging directory of a target. Raises SyncdError if none of the places works.

    `kind` as for `places`; the "target" of a pull is its source.
    """
    tried = []
    for place in places(state, target, kind):
        try:
            return Staging(place, _prove(place, target_fd))
        except OSError as error:
            tried.append(f"{place} ({errno.errorcode.get(error.errno or 0, '?')})")
    raise SyncdError(
        f"no place for unfinished files shares a mount with {target}: tried {', '.join(tried)}; "
        "make it or the directory above it writable"
    )


def _prove(place: Path, target_fd: int) -> int:
    """Open `place` (made if missing, 0700) after a rename from it into the target worked."""
    made = False
    try:
        place.mkdir(mode=0o700, parents=True)
        made = True
    except FileExistsError:
        pass
    fd = -1
    try:
        fd = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        about = os.fstat(fd)
        if about.st_uid != os.geteuid() or stat.S_IMODE(about.st_mode) & 0o022:
            raise PermissionError(errno.EPERM, "somebody else can write into it")
        _try_rename(fd, target_fd)
    except OSError:
        if fd >= 0:
            os.close(fd)
        if made:
            with contextlib.suppress(OSError):
                os.rmdir(place)
        raise
    return fd


def _try_rename(fd: int, target_fd: int) -> None:
    """Rename an empty file from one directory into the other. Raises OSError; its name stays in neither."""
    trial = f".syncd-{int.from_bytes(os.urandom(8))}"  # always ignored, and nobody else's
    os.close(os.open(trial, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600, dir_fd=fd))
    try:
        os.rename(trial, trial, src_dir_fd=fd, dst_dir_fd=target_fd)
    except OSError:
        os.unlink(trial, dir_fd=fd)
        raise
    os.unlink(trial, dir_fd=target_fd)


def sweep(staging: Staging, is_own: Callable[[int, str], bool], aside: bytes) -> list[bytes]:
    """Clear what an interrupted run left: `new-N` goes, `old-N` only if `is_own(descriptor of its directory, name)`.

    Any other `old-N` may be a container's: it is moved below `aside` and its place is returned. So is a
    directory of such a name, which syncd never makes. The same in `olds-N`, which goes then.
    """
    saved = _sweep(staging.fd, staging.fd, is_own, os.fsdecode(aside))
    for name in sorted(os.listdir(staging.fd)):
        if not name.startswith("olds-"):
            continue
        try:
            fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=staging.fd)
        except OSError:
            continue  # not of syncd's making: a container can reach a staging inside its mirror
        try:
            saved += _sweep(fd, staging.fd, is_own, os.fsdecode(aside))
        finally:
            os.close(fd)
        with contextlib.suppress(OSError):  # it holds something that syncd did not put there
            os.rmdir(name, dir_fd=staging.fd)
    return saved


def _sweep(fd: int, staging: int, is_own: Callable[[int, str], bool], aside: str) -> list[bytes]:
    saved = []
    for name in sorted(os.listdir(fd)):
        if not name.startswith(("new-", "old-")):
            continue
        is_dir = stat.S_ISDIR(os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode)
        if not is_dir and (name.startswith("new-") or is_own(fd, name)):
            os.unlink(name, dir_fd=fd)
        else:
            saved.append(_move_aside(fd, name, staging, aside))
    return saved


def _move_aside(fd: int, name: str, staging: int, aside: str) -> bytes:
    """Move an entry of `fd` below `aside` in staging, over nothing and through no link; return where it is now."""
    directory = os.dup(staging)
    try:
        for part in aside.split("/"):
            with contextlib.suppress(FileExistsError):
                os.mkdir(part, 0o700, dir_fd=directory)
            below = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
            os.close(directory)
            directory = below
        there = set(os.listdir(directory))
        free = next(
            n for n in itertools.chain([name], (f"{name}.{number}" for number in itertools.count(1))) if n not in there
        )
        os.rename(name, free, src_dir_fd=fd, dst_dir_fd=directory)
    finally:
        os.close(directory)
    return os.fsencode(f"{aside}/{free}")
