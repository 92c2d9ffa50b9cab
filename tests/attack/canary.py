"""Tells whether anybody opened, read or changed what lies outside: by inotify, access times and content."""

from __future__ import annotations

import ctypes
import os
import select
import struct
from pathlib import Path
from typing import NamedTuple

ACCESS, MODIFY, CLOSE_WRITE, CLOSE, OPEN = 0x1, 0x2, 0x8, 0x10, 0x20
MOVES, CREATE, DELETE = 0xC0, 0x100, 0x200
TOUCHED = ACCESS | MODIFY | CLOSE_WRITE | CLOSE | OPEN | MOVES | CREATE | DELETE

_libc = ctypes.CDLL(None, use_errno=True)


class Looks(NamedTuple):
    """What must stay as it is. A hard link made by an attacker changes the ctime, so that is left out."""

    mode: int
    owner: tuple[int, int]
    size: int
    mtime_ns: int
    atime_ns: int


class Canary:
    """Watches everything at and below some directories. Adding a watch opens nothing."""

    def __init__(self, *tops: Path) -> None:
        self.fd = _libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        assert self.fd >= 0
        self.paths: dict[int, Path] = {}
        self.bodies: dict[Path, bytes] = {}
        found = []
        for top in tops:
            found += [top, *sorted(top.rglob("*"))]
        for path in found:
            if path.is_file():
                self.bodies[path] = path.read_bytes()
        self.looks = {path: self._look(path) for path in found}
        self.names = {path: set(os.listdir(path)) for path in found if path.is_dir()}
        self.looks = {path: self._look(path) for path in found}
        for path in found:
            number = _libc.inotify_add_watch(self.fd, os.fsencode(path), ctypes.c_uint32(TOUCHED))
            assert number >= 0, path
            self.paths[number] = path
        self.events: list[tuple[Path, int, bytes]] = []

    @staticmethod
    def _look(path: Path) -> Looks:
        at = path.lstat()
        return Looks(at.st_mode, (at.st_uid, at.st_gid), at.st_size, at.st_mtime_ns, at.st_atime_ns)

    def read(self, wait: float = 0.0) -> None:
        """Take the events that are there, or come within `wait` seconds. Call it often, lest the queue overflows."""
        select.select([self.fd], [], [], wait)
        while True:
            try:
                block = os.read(self.fd, 1 << 16)
            except BlockingIOError:
                return
            at = 0
            while at < len(block):
                number, mask, _, length = struct.unpack_from("iIII", block, at)
                name = block[at + 16 : at + 16 + length].rstrip(b"\0")
                at += 16 + length
                self.events.append((self.paths.get(number, Path("overflow")), mask, name))

    def check(self) -> None:
        """Fail if anything outside was touched; then prove that a touch would have been noticed."""
        self.read()
        assert not self.events, [(str(path), hex(mask), name) for path, mask, name in self.events[:20]]
        assert {path: self._look(path) for path in self.looks} == self.looks
        for path, body in self.bodies.items():
            assert path.read_bytes() == body
        for path, names in self.names.items():
            assert set(os.listdir(path)) == names
        self.read()
        sung = {path for path, mask, _ in self.events if mask & OPEN}
        assert sung >= self.bodies.keys() | self.names.keys(), "the canary cannot sing"

    def close(self) -> None:
        os.close(self.fd)
