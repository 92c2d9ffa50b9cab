"""Mounts of this process as `/proc/self/mountinfo` shows them, and whose events can be believed."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable
from typing import NamedTuple

from syncd.system import statx

MOUNTINFO = "/proc/self/mountinfo"

# Only types whose events lie. A FUSE type that is not named here counts as plain FUSE.
_LIES = {
    "changes made on the other side give no events": (
        *("9p", "afs", "ceph", "cifs", "nfs", "nfs4", "prl_fs", "smb2", "smb3", "vboxsf", "virtiofs", "vmhgfs"),
        *("fuse.rclone", "fuse.sshfs", "fuse.vmhgfs-fuse"),
    ),
    "the virtual machine passes on only part of the changes made on the host": (
        *("fakeowner", "fuse.grpcfuse", "fuse.osxfs", "osxfs"),
    ),
}
_REASONS = {fstype: reason for reason, fstypes in _LIES.items() for fstype in fstypes}


class Mount(NamedTuple):
    """One line of mountinfo. `device` compares with st_dev (not on btrfs, whose subvolumes have their own).

    `root` is the directory of the filesystem that is mounted at `point`; both are absolute.
    """

    id: int
    parent: int
    device: int
    root: bytes
    point: bytes
    fstype: str
    source: bytes
    options: str


def events_lie(fstype: str) -> str | None:
    """Why changes on a filesystem of this type may give no event, or None where events can be believed."""
    if fstype in _REASONS:
        return f"{fstype}: {_REASONS[fstype]}"
    if fstype == "fuse" or fstype.startswith("fuse."):  # fuseblk is a disk that only this machine writes
        return f"{fstype}: changes made below the FUSE mount give no events"
    return None


def parse(text: bytes) -> list[Mount]:
    """The mounts of a mountinfo text, in its order. A line of another form is passed over."""
    return [mount for line in text.splitlines() if (mount := _parse_line(line)) is not None]


def _parse_line(line: bytes) -> Mount | None:
    left, found, right = line.partition(b" - ")
    fields, tail = left.split(b" "), right.split(b" ")
    if not found or len(fields) < 6 or len(tail) < 2:
        return None
    major, _, minor = fields[2].partition(b":")
    return Mount(
        id=int(fields[0]),
        parent=int(fields[1]),
        device=os.makedev(int(major), int(minor)),
        root=_unescape(fields[3]),
        point=_unescape(fields[4]),
        fstype=_unescape(tail[0]).decode("utf-8", "backslashreplace"),
        source=_unescape(tail[1]),
        options=b",".join([fields[5], *tail[2:]]).decode("utf-8", "backslashreplace"),
    )


def _unescape(field: bytes) -> bytes:
    """Undo the kernel's octal escapes (space, tab, newline, backslash, `#`)."""
    return re.sub(rb"\\([0-7]{3})", lambda match: bytes([int(match[1], 8)]), field)


def mounts() -> list[Mount]:
    """All mounts of this process, hidden ones too; none where there is no mountinfo."""
    try:
        with open(MOUNTINFO, "rb") as file:
            return parse(file.read())
    except FileNotFoundError:
        return []


def find(path: bytes, among: Iterable[Mount]) -> Mount | None:
    """The mount on which `path` (absolute, without links) lies: walked as the kernel does, from `/` down.

    So a mount that a later one hides is not found. None if no mount of `/` is among them.
    """
    everything = list(among)
    known = {mount.id for mount in everything}
    here = next((m for m in everything if m.point == b"/" and (m.parent not in known or m.parent == m.id)), None)
    while here is not None:
        below = [m for m in everything if m.parent == here.id and m.id != here.id and _within(path, m.point)]
        if not below:
            break
        here = min(below, key=lambda mount: len(mount.point))  # the first one that a walk comes to
    return here


def _within(path: bytes, top: bytes) -> bool:
    return top == b"/" or path == top or path.startswith(top + b"/")


def mount_of(path: bytes) -> Mount | None:
    """The mount that holds `path`, whose links are followed. May block on a hung server."""
    return find(os.path.realpath(path), mounts())


def mounts_below(path: bytes) -> list[Mount]:
    """The mounts below the directory `path` that can be seen there, by mount point; not its own."""
    return _below(os.path.realpath(path), mounts())


def _below(top: bytes, everything: list[Mount]) -> list[Mount]:
    inside = [mount for mount in everything if mount.point != top and _within(mount.point, top)]
    return sorted((m for m in inside if find(m.point, everything) == m), key=lambda mount: mount.point)


class Unheard(NamedTuple):
    """A place where changes may give no event: what is mounted there, and why. `lies`: nor can it be believed at once."""

    fstype: str
    reason: str
    lies: bool = True


def unheard(path: bytes) -> dict[bytes, Unheard]:
    """Such places at and below a directory, by their relative paths. Links in `path` are followed; may block."""
    top, everything = os.path.realpath(path), mounts()
    own = find(top, everything)
    found = {}
    for mount in (*([own] if own is not None else []), *_below(top, everything)):
        place = mount.point[len(top.rstrip(b"/")) + 1 :] if mount is not own else b""
        if (reason := events_lie(mount.fstype)) is not None:
            found[place] = Unheard(mount.fstype, reason)
        elif mount is not own and not os.path.isdir(mount.point):
            found[place] = Unheard(
                mount.fstype, "a file mounted by itself: its directory hears nothing of it", lies=False
            )
    return found


def unique_mount_id(path: bytes | int) -> int:
    """A number for the mount that holds a path (links followed) or an open descriptor.

    Never given twice in one boot since Linux 6.8; before that the id of mountinfo, which may come again.
    0 where neither is known. Raises OSError if there is nothing at `path`.
    """
    os.stat(path)
    for mask in (statx.MNT_ID_UNIQUE, statx.MNT_ID):
        with contextlib.suppress(OSError):
            seen = statx.statx(path, 0, mask)
            if seen.mask & mask:
                return seen.mount
    name = f"/proc/self/fd/{path}".encode() if isinstance(path, int) else path
    mount = mount_of(name)
    return mount.id if mount is not None else 0


def open_changes() -> int:
    """A descriptor for poll(2): POLLPRI | POLLERR once after each change of the mounts. The caller closes it.

    Raises OSError where there is no mountinfo.
    """
    return os.open(MOUNTINFO, os.O_RDONLY | os.O_CLOEXEC)
