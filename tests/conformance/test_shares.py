"""Sources whose changes come from the other side, or that fail in parts."""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from syncd.watchers.choose import choose
from syncd.watchers.poll import PollWatcher
from tests.fusefs import faulty
from tests.slowshare import missing, share
from tests.watching import Ear

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root"),
    pytest.mark.skipif(missing() != "", reason=missing()),
]
UNCACHED = ("dir_cache=no",)


@pytest.fixture
def places(tmp_path: Path) -> tuple[Path, Path]:
    """The other side, with a small tree, and an empty mount point."""
    behind, mount = tmp_path / "behind", tmp_path / "mount"
    (behind / "d/e").mkdir(parents=True)
    for path in ("f", "d/f", "d/e/f"):
        (behind / path).write_bytes(b"before")
    mount.mkdir()
    return behind, mount


@contextlib.contextmanager
def polled(kernel, mount: Path, fstype: str) -> Iterator[Ear]:
    ear = Ear(PollWatcher(os.fsencode(mount), kernel, fstype, least=0.05), kernel, mount)
    with contextlib.closing(ear.watcher):
        ear.cover()
        yield ear


def test_changes_behind_a_share(kernel, places):
    behind, mount = places
    with share(behind, mount, options=UNCACHED), polled(kernel, mount, "fuse.sshfs") as ear:
        (behind / "d/e/f").write_bytes(b"after it all")
        ear.expect(b"d/e/f")
        (behind / "d/new").write_bytes(b"")
        (behind / "f").unlink()
        ear.expect(b"d/new", b"f")
        (mount / "d/f").write_bytes(b"from this side")
        ear.expect(b"d/f")
        (behind / "d").rename(behind / "h")
        ear.expect(b"d", b"h/e/f")


def test_the_cache_of_a_share_does_not_hide_edits(kernel, places):
    """New names stay hidden for as long as the bound says; what is known is asked for by opening it."""
    behind, mount = places
    with share(behind, mount), polled(kernel, mount, "fuse.sshfs") as ear:
        assert ear.watcher.bound > 20
        (behind / "d/e/f").write_bytes(b"after it all")
        start = time.monotonic()
        ear.expect(b"d/e/f")
        assert time.monotonic() - start < 15


def test_a_share_is_polled_unasked(kernel, places):
    behind, mount = places
    with share(behind, mount):
        watcher, reason = choose("auto", os.fsencode(mount), kernel)
        with contextlib.closing(watcher):
            assert watcher.name == "poll"
            assert reason.startswith("fuse.sshfs: ")


def test_a_share_below_a_local_source_is_polled(kernel, places, tmp_path, monkeypatch):
    monkeypatch.setattr("syncd.watchers.poll.LEAST", 0.05)
    behind, _ = places
    source = tmp_path / "source"
    (source / "share").mkdir(parents=True)
    (source / "ignored").mkdir()
    name = "inotify" if kernel.name == "native" else "pyinotify"
    with share(behind, source / "share", options=UNCACHED):
        watcher, _ = choose("auto", os.fsencode(source), kernel)
        ear = Ear(watcher, kernel, source)
        with contextlib.closing(watcher):
            ear.cover()
            assert watcher.name == name
            assert "share is fuse.sshfs: changes made on the other side" in watcher.message
            (behind / "d/new").write_bytes(b"")
            ear.expect(b"share/d/new")
            (source / "new").write_bytes(b"")
            ear.until(lambda hints: b"new" in hints.ready)
    # the umount is told by events or by the mount table; covered anew, nothing is polled


def test_what_cannot_be_read_is_not_gone(kernel, places):
    behind, mount = places
    with faulty(behind, mount) as fs, polled(kernel, mount, "fuse.faulty") as ear:
        fs.fail({"d/e": errno.EIO})
        hints = ear.expect(b"d/e")
        assert not hints.removed
        assert not hints.rescan
        ear.forget()
        (behind / "d/e/new").write_bytes(b"")
        (behind / "d/f").write_bytes(b"after")
        ear.expect(b"d/f")
        assert b"d/e/new" not in ear.hints.waiting
        fs.fail({})
        assert b"d/e" in ear.expect(b"d/e/new").deep


@pytest.mark.parametrize("number", [errno.EIO, errno.EACCES, errno.ENOTCONN])
def test_a_root_that_cannot_be_read(kernel, places, number):
    behind, mount = places
    with faulty(behind, mount) as fs, polled(kernel, mount, "fuse.faulty") as ear:
        fs.fail({"": number})
        hints = ear.until(bool)
        assert hints.rescan or b"" in hints.deep
        ear.hints = ear.watcher.read()
        (behind / "d/e/new").write_bytes(b"")
        fs.fail({})
        ear.expect(b"d/e/new")


def test_one_file_that_cannot_be_read(kernel, places):
    behind, mount = places
    with faulty(behind, mount) as fs, polled(kernel, mount, "fuse.faulty") as ear:
        fs.fail({"d/f": errno.EACCES})
        ear.expect(b"d/f")
        ear.forget()
        fs.fail({})
        ear.expect(b"d/f")
        assert not ear.hints.rescan
