"""What stands at one path of one side. Absence is `None`."""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple


class Kind(IntEnum):
    """What an entry is. The numbers stand in the baseline file."""

    FILE = 1
    DIR = 2
    LINK = 3
    OTHER = 4  # FIFO, socket, device: never read, never mirrored


class Fingerprint(NamedTuple):
    """What one `lstat` tells of an entry: cheap, and a doubt rather than a proof.

    `size` in bytes, times in nanoseconds since 1970, `mode` as in `st_mode`.
    The device number is left out: tmpfs, overlay and FUSE renumber.
    """

    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int
    mode: int


class Entry(NamedTuple):
    """One entry as a scan saw it.

    `digest` is the XXH3-128 of a file's bytes (big-endian, `xxhash.xxh3_128(x).digest()`),
    or None while it is in doubt; `link` is a link's text.
    """

    kind: Kind
    seen: Fingerprint
    digest: bytes | None = None
    link: bytes | None = None


class Agreed(NamedTuple):
    """One entry of the baseline: what both sides last agreed on.

    `mode` holds permission bits only. `source` and `target` are the fingerprints under which
    each side was last seen to hold this content. `shared` = the source file had further hard
    links; `mount` = the source directory was a mount point.
    """

    kind: Kind
    mode: int
    mtime_ns: int
    digest: bytes | None
    link: bytes | None
    source: Fingerprint
    target: Fingerprint
    shared: bool = False
    mount: bool = False
