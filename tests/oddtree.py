"""A tree of every odd thing a filesystem can hold."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

OTHERS = {b"fifo", b"socket", b"device"}  # never mirrored
DROPPED = {b"setuid", b"setgid"}  # mirrored without these bits

ODD_NAMES = [
    b"not utf-8 \xff\xfe",
    b"new\nline",
    b"tab\tand \\backslash",
    b" leading and trailing ",
    b"-rf",
    b"*?[glob]",
    b"$(dollar) `tick` \"quote\" 'single'",
    b"n" * 255,
    "größe ✓ 漢字".encode(),
]


def make(root: Path, *, big: int = 1 << 30) -> None:
    """Fill the directory `root`. `big`: apparent size of the largest file, in bytes (written whole, with data)."""
    top = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        _names(top)
        _links(top)
        _files(top, big)
        _directories(top)
        _others(top, root)
        _deep(top)
    finally:
        os.close(top)


def _write(fd: int, name: bytes, body: bytes, mode: int = 0o644) -> None:
    file = os.open(name, os.O_CREAT | os.O_WRONLY | os.O_EXCL, 0o644, dir_fd=fd)
    try:
        os.write(file, body)
        os.fchmod(file, mode)
    finally:
        os.close(file)


def _names(top: int) -> None:
    os.mkdir(b"names", dir_fd=top)
    fd = os.open(b"names", os.O_RDONLY, dir_fd=top)
    for number, name in enumerate(ODD_NAMES):
        _write(fd, name, name)
        os.mkdir(b"dir %d " % number + name[:200], dir_fd=fd)
        os.symlink(name, b"link %d" % number, dir_fd=fd)
    os.close(fd)


def _links(top: int) -> None:
    for name, text in {
        b"dangling": b"nowhere/at/all",
        b"absolute": b"/etc/hostname",
        b"outside": b"../../../etc",
        b"loop a": b"loop b",
        b"loop b": b"loop a",
        b"self": b"self",
        b"to a directory": b"names",
        b"link not utf-8": b"\xff\xfe\xfd",
        b"long": b"x/" * 1000 + b"y",
    }.items():
        os.symlink(text, name, dir_fd=top)


def _files(top: int, big: int) -> None:
    _write(top, b"empty", b"")
    _write(top, b"one", b"1")
    _write(top, b"read-only", b"r", 0o444)
    _write(top, b"no rights", b"n", 0o000)
    _write(top, b"executable", b"#!/bin/sh\n", 0o755)
    _write(top, b"setuid", b"s", 0o4755)
    _write(top, b"setgid", b"s", 0o2755)
    _write(top, b"old", b"1970")
    os.utime(b"old", ns=(0, 1), dir_fd=top)
    _write(top, b"future", b"2100")
    os.utime(b"future", ns=(0, 4_102_444_800_123_456_789), dir_fd=top)
    _write(top, b"linked", b"two names")
    os.link(b"linked", b"linked too", src_dir_fd=top, dst_dir_fd=top)
    for size in (131_071, 131_072, 131_073, 1 << 20):
        _write(top, b"size %d" % size, os.urandom(size))
    sparse = os.open(b"sparse", os.O_CREAT | os.O_WRONLY, 0o644, dir_fd=top)
    os.pwrite(sparse, b"middle", 100 << 20)
    os.ftruncate(sparse, 300 << 20)
    os.close(sparse)
    large = os.open(b"large", os.O_CREAT | os.O_WRONLY, 0o644, dir_fd=top)
    block = os.urandom(1 << 20)
    for _ in range(big >> 20):
        os.write(large, block)
    os.close(large)


def _directories(top: int) -> None:
    os.mkdir(b"empty directory", dir_fd=top)
    os.mkdir(b"sticky", dir_fd=top)
    os.chmod(b"sticky", 0o1777, dir_fd=top)
    os.mkdir(b"read-only directory", dir_fd=top)
    fd = os.open(b"read-only directory", os.O_RDONLY, dir_fd=top)
    _write(fd, b"inside", b"i")
    os.close(fd)
    os.chmod(b"read-only directory", 0o555, dir_fd=top)


def _others(top: int, root: Path) -> None:
    os.mkfifo(b"fifo", dir_fd=top)
    before = os.open(".", os.O_RDONLY)
    os.fchdir(top)  # a socket's path is short
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind("socket")
    finally:
        os.fchdir(before)
        os.close(before)
    if os.geteuid() == 0:
        os.mknod(root / "device", stat.S_IFCHR | 0o600, os.makedev(1, 3))


def _deep(top: int) -> None:
    """A path longer than PATH_MAX (4,096 bytes)."""
    fd = os.dup(top)
    for _ in range(21):
        name = b"d" * 200
        os.mkdir(name, dir_fd=fd)
        below = os.open(name, os.O_RDONLY | os.O_DIRECTORY, dir_fd=fd)
        os.close(fd)
        fd = below
    _write(fd, b"bottom", b"deep")
    os.close(fd)


def remove(root: Path) -> None:
    """Remove a tree that may hold paths longer than PATH_MAX."""
    fd = os.open(root.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        _remove(fd, os.fsencode(root.name))
    finally:
        os.close(fd)


def _remove(parent: int, name: bytes) -> None:
    fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=parent)
    try:
        os.fchmod(fd, 0o700)
        for inside in map(os.fsencode, os.listdir(fd)):
            if stat.S_ISDIR(os.stat(inside, dir_fd=fd, follow_symlinks=False).st_mode):
                _remove(fd, inside)
            else:
                os.unlink(inside, dir_fd=fd)
    finally:
        os.close(fd)
    os.rmdir(name, dir_fd=parent)
