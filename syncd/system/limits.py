"""How many directories inotify lets this user watch, and what to do when that is too few."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import NamedTuple

FOLDER = Path("/proc/sys/fs/inotify")
PLENTY = 524_288  # what desktop distributions and editors recommend


class Limits(NamedTuple):
    """The three limits of inotify for one user."""

    watches: int
    instances: int
    queued: int


def limits() -> Limits | None:
    """The limits in force, or None where there is no inotify."""
    try:
        names = ("max_user_watches", "max_user_instances", "max_queued_events")
        return Limits(*(int((FOLDER / name).read_text(encoding="ascii")) for name in names))
    except (OSError, ValueError):
        return None


def shortage(needed: int, refused: int = 0) -> str | None:
    """What to tell a user whose tree needs `needed` watches: numbers and the line that helps. None = enough.

    `refused` is the errno with which the kernel refused a watch or a queue: then others have used up the rest.
    """
    now = limits()
    if now is None:
        return None
    if refused == errno.EMFILE:
        more = max(2 * now.instances, 1_024)
        return (
            f"No inotify queue is left: this user may have {now.instances} (fs.inotify.max_user_instances). "
            f"Raise it with: sudo sysctl fs.inotify.max_user_instances={more}"
        )
    if needed <= now.watches and refused != errno.ENOSPC:
        return None
    others = " and other programs hold the rest" if needed <= now.watches else ""
    more = PLENTY
    while more < 2 * max(needed, now.watches):
        more *= 2
    return (
        f"{needed:,} directories are to be watched, but this user may watch {now.watches:,}"
        f" (fs.inotify.max_user_watches){others}. Raise it with: sudo sysctl fs.inotify.max_user_watches={more}"
    )
