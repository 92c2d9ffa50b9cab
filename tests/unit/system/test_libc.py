"""System calls by ctypes, also where they are missing."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from syncd.system import libc
from tests import trees
from tests.trees import Fifo, Link, build


@pytest.fixture(params=["renameat2", "missing", "refused"])
def _renames(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "missing":
        monkeypatch.setattr(libc, "_renameat2", None)
    elif request.param == "refused":
        monkeypatch.setattr(libc, "_renameat2", lambda *_: errno.EINVAL)


@pytest.fixture
def fd(tmp_path: Path) -> Iterator[int]:
    opened = os.open(tmp_path, os.O_RDONLY)
    yield opened
    os.close(opened)


KINDS = [b"file", Link("link"), {"x": b"inside"}, {}, Fifo()]


@pytest.mark.usefixtures("_renames")
@pytest.mark.parametrize("value", KINDS, ids=str)
def test_rename_new_moves_every_kind(tmp_path: Path, fd: int, value: object) -> None:
    build(tmp_path, {"old": value})
    libc.rename_new(fd, b"old", fd, b"new")
    assert trees.read(tmp_path) == trees.as_bytes({"new": value})


@pytest.mark.usefixtures("_renames")
@pytest.mark.parametrize("there", KINDS, ids=str)
@pytest.mark.parametrize("value", KINDS, ids=str)
def test_rename_new_is_never_over_anything(tmp_path: Path, fd: int, value: object, there: object) -> None:
    build(tmp_path, {"old": value, "new": there})
    with pytest.raises(FileExistsError):
        libc.rename_new(fd, b"old", fd, b"new")
    assert trees.read(tmp_path) == trees.as_bytes({"old": value, "new": there})


@pytest.mark.usefixtures("_renames")
def test_rename_new_of_nothing_leaves_nothing(tmp_path: Path, fd: int) -> None:
    with pytest.raises(FileNotFoundError):
        libc.rename_new(fd, b"old", fd, b"new")
    assert trees.read(tmp_path) == {}


def test_reserve_keeps_the_size(tmp_path: Path) -> None:
    with open(tmp_path / "f", "w+b") as file:
        libc.reserve(file.fileno(), 100_000)
        state = os.fstat(file.fileno())
        assert state.st_size == 0
        assert state.st_blocks * 512 >= 100_000


def test_reserve_without_fallocate_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libc, "_fallocate", None)
    with open(tmp_path / "f", "w+b") as file, pytest.raises(OSError, match="not supported") as caught:
        libc.reserve(file.fileno(), 1)
    assert caught.value.errno == errno.EOPNOTSUPP


@pytest.mark.parametrize("missing", [False, True])
def test_syncfs_and_refresh(fd: int, monkeypatch: pytest.MonkeyPatch, missing: bool) -> None:
    if missing:
        monkeypatch.setattr(libc, "_syncfs", None)
        monkeypatch.setattr(libc, "_statx", None)
        monkeypatch.setattr(os, "sync", lambda: None)
    libc.syncfs(fd)
    libc.refresh(fd, b"nowhere")


def test_syncfs_raises() -> None:
    with pytest.raises(OSError, match="descriptor"):
        libc.syncfs(-1)


def test_sigio_is_ignored() -> None:
    libc.ignore_sigio()
    os.kill(os.getpid(), signal.SIGIO)
