"""A `.git` file is followed inside the source, and only there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from syncd.engine.vcs import KNOWN, control_directories
from syncd.kernel.contract import Root
from syncd.kernel.pure import PureKernel


@contextmanager
def root(path: Path) -> Iterator[Root]:
    with closing(PureKernel().open_root(os.fsencode(path))) as opened:
        yield opened


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("gitdir: main/.git/worktrees/w\n", b"main/.git/worktrees/w"),
        ("gitdir: ./a/../b\r\n", b"b"),
        ("gitdir: ../outside/.git\n", b".git"),
        ("gitdir: /etc\n", b".git"),
        ("gitdir: .\n", b".git"),
        ("something else\n", b".git"),
        ("", b".git"),
    ],
)
def test_a_git_file(tmp_path: Path, text: str, want: bytes) -> None:
    (tmp_path / ".git").write_text(text, newline="")
    with root(tmp_path) as opened:
        assert control_directories(opened, os.fsencode(tmp_path))[0].directory == want


def test_an_absolute_path_inside(tmp_path: Path) -> None:
    (tmp_path / ".git").write_text(f"gitdir: {tmp_path}/x\n")
    with root(tmp_path) as opened:
        assert control_directories(opened, os.fsencode(tmp_path))[0].lock_path == b"x/index.lock"


def test_a_link_or_fifo_is_never_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("gitdir: x\n")
    (tmp_path / ".git").symlink_to("file")
    with root(tmp_path) as opened:
        assert control_directories(opened, os.fsencode(tmp_path)) == KNOWN
        (tmp_path / ".git").unlink()
        os.mkfifo(tmp_path / ".git")
        assert control_directories(opened, os.fsencode(tmp_path)) == KNOWN
