"""How many directories inotify lets this user watch, and what to do when that is too few."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import NamedTuple

SYSCTL = Path("/proc/sys")
PLENTY = 524_288  # what desktop distributions and editors recommend

# The user namespace of a container has limits of its own; the smaller one holds.
_WATCHES = ("fs.inotify.max_user_watches", "user.max_inotify_watches")
_INSTANCES = ("fs.inotify.max_user_instances", "user.max_inotify_instances")
_QUEUED = ("fs.inotify.max_queued_events",)


class Limits(NamedTuple):
    """The three limits of inotify for one user."""

    watches: int
    instances: int
    queued: int


def limits() -> Limits | None:
    """The limits in force, or None where there is no inotify."""
    found = [_smallest(names) for names in (_WATCHES, _INSTANCES, _QUEUED)]
    values = [value for value, name in found if name]
    return Limits(*values) if len(values) == len(found) else None


def shortage(needed: int, refused: int = 0) -> str | None:
    """What to tell a user whose tree needs `needed` watches: numbers and the line that helps. None = enough.

    `refused` is the errno with which the kernel refused a watch or a queue: then others have used up the rest.
    """
    if limits() is None:
        return None
    if refused == errno.EMFILE:
        most, name = _smallest(_INSTANCES)
        more = max(2 * most, 1_024)
        return f"No inotify queue is left: this user may have {most} ({name}). Raise it with: sudo sysctl {name}={more}"
    most, name = _smallest(_WATCHES)
    if needed <= most and refused != errno.ENOSPC:
        return None
    others = " and other programs hold the rest" if needed <= most else ""
    more = PLENTY
    while more < 2 * max(needed, most):
        more *= 2
    return (
        f"{needed:,} directories are to be watched, but this user may watch {most:,} ({name}){others}. "
        f"Raise it with: sudo sysctl {name}={more}"
    )


def _smallest(names: tuple[str, ...]) -> tuple[int, str]:
    """The smallest of some settings that are there, with its name; (0, "") if none is."""
    found = []
    for name in names:
        try:
            found.append((int((SYSCTL / name.replace(".", "/")).read_text(encoding="ascii")), name))
        except (OSError, ValueError):
            continue
    return min(found, key=lambda pair: pair[0], default=(0, ""))
