"""The life of a watch whose source stands on each kind of filesystem."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.compare import Seen, assert_equal, read_tree
from tests.integration.watching import Watching, watching
from tests.machine import eventually, loop, needs_root, overlayfs, tmpfs
from tests.slowshare import missing, share

pytestmark = [pytest.mark.kernel, needs_root]

SLACK = 2.0  # seconds on top of a stated bound: the cycle itself, on a machine that does other things too


@pytest.fixture(params=["ext4", "xfs", "btrfs", "tmpfs", "overlayfs"])
def mount(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    point = tmp_path / "mount"
    with ExitStack() as stack:
        if request.param == "tmpfs":
            stack.enter_context(tmpfs(point))
        elif request.param == "overlayfs":
            stack.enter_context(overlayfs(point))
        else:
            stack.enter_context(loop(request.param, point))
        yield point


def assert_flushed(watch: Watching) -> None:
    answer = watch.run("flush")
    assert answer.returncode == 0, answer.stderr
    assert_equal(watch.source, watch.target)


def test_the_life_of_a_watch(mount: Path, tmp_path: Path) -> None:
    source = mount / "source"
    source.mkdir()
    (source / "a.txt").write_text("a")
    (source / "dir" / "deep").mkdir(parents=True)
    for number in range(50):
        (source / "dir" / f"f{number}").write_bytes(b"x" * number * 300)
    with watching(source, tmp_path / "target", tmp_path / "home") as watch:
        assert watch.status()["bound"] == 0, "events are believed here"
        assert_flushed(watch)
        live(watch)
        assert watch.stop() == 0
    (source / "while away").write_text("away")
    with watching(source, tmp_path / "target", tmp_path / "home") as watch:
        assert (watch.reports[0]["put"], watch.reports[0]["removed"]) == (1, 0)
        assert_flushed(watch)


def live(watch: Watching) -> None:
    source, target = watch.source, watch.target
    (source / "a.txt").write_text("saved")
    eventually(lambda: (target / "a.txt").read_text() == "saved", "a save did not arrive")
    beside = source / "beside"
    beside.write_text("renamed over")
    beside.rename(source / "a.txt")
    eventually(lambda: (target / "a.txt").read_text() == "renamed over", "a rename did not arrive")
    (source / "dir" / "f3").unlink()
    (source / "link").symlink_to("dir/f4")
    os.chmod(source / "dir" / "f5", 0o750)
    assert_flushed(watch)
    (source / "dir").rename(source / "moved")
    (source / "moved" / "f7").write_text("in its new place")
    assert_flushed(watch)
    shutil.copytree(source / "moved", source / "copied")
    assert_flushed(watch)
    shutil.rmtree(source / "moved")
    assert_flushed(watch)
    with open(source / "big", "wb") as file:
        file.truncate(3 << 20)
        file.seek(1 << 20)
        file.write(os.urandom(500_000))
    assert_flushed(watch)


def test_a_target_on_each(mount: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "dir").mkdir(parents=True)
    for number in range(50):
        (source / "dir" / f"f{number}").write_bytes(b"x" * number * 300)
    (source / "a.txt").write_text("a")
    with watching(source, mount / "target", tmp_path / "home") as watch:
        assert_flushed(watch)
        live(watch)
        assert watch.stop() == 0
    with watching(source, mount / "target", tmp_path / "home") as watch:
        assert (watch.reports[0]["put"], watch.reports[0]["removed"]) == (0, 0)
    assert [path.name for path in (mount / "target").iterdir() if path.name.startswith(".")] == []


def test_the_layer_below_an_overlay_is_mirrored_and_changed(tmp_path: Path) -> None:
    with overlayfs(tmp_path / "mount") as source, watching(source, tmp_path / "target", tmp_path / "home") as watch:
        assert (watch.target / "image" / "file").read_text() == "from the lower layer"
        (source / "image" / "file").write_text("copied up")
        eventually(lambda: (watch.target / "image" / "file").read_text() == "copied up", "a copy up is not seen")
        (source / "upper").write_text("in the upper layer")
        (source / "image").rename(source / "moved") if _can_move(source) else shutil.rmtree(source / "image")
        assert_flushed(watch)


def _can_move(source: Path) -> bool:
    """Directories of a lower layer may be renamed only with `redirect_dir`."""
    try:
        (source / "image").rename(source / "trial")
    except OSError:
        return False
    (source / "trial").rename(source / "image")
    return True


# --- a share ------------------------------------------------------------------------------------------


@pytest.mark.skipif(bool(missing()), reason=missing())
@pytest.mark.timeout(240)
def test_an_edit_behind_a_share_arrives_within_the_stated_bound(tmp_path: Path) -> None:
    behind = tmp_path / "behind"
    for number in range(200):
        (behind / f"d{number % 8}").mkdir(parents=True, exist_ok=True)
        (behind / f"d{number % 8}" / f"f{number}").write_text(f"{number}")
    took = {}
    with (
        share(behind, tmp_path / "mount") as mount,
        watching(mount, tmp_path / "target", tmp_path / "home") as watch,
    ):
        status = watch.status()
        assert status["watcher"] == "poll"
        assert "sshfs" in status["watcher_reason"]
        assert_arrived(behind, watch)

        def edit(what: str, change: object) -> None:
            bound = watch.status()["bound"]
            began = time.monotonic()
            assert callable(change)
            change()
            eventually(
                lambda: alike(behind, watch.target),
                f"{what}: not within {bound:.1f} s",
                bound + SLACK,
            )
            took[what] = time.monotonic() - began, bound

        edit("edited", lambda: (behind / "d3" / "f3").write_text("edited on the other side"))
        edit("same size", lambda: (behind / "d4" / "f4").write_text("5"))
        edit("names", lambda: change_names(behind))  # the share's own cache hides new names for a while
        (mount / "d1" / "here").write_text("through the mount")
        eventually((watch.target / "d1" / "here").exists, "a write through the mount", status["bound"] + SLACK)
        assert [report["halt"] for report in watch.passed() if report["halt"]] == []
    print({what: f"{seconds:.1f} of {bound:.1f} s" for what, (seconds, bound) in took.items()})


def change_names(behind: Path) -> None:
    (behind / "d5" / "new").write_text("new")
    (behind / "d6" / "f6").unlink()
    (behind / "d7").rename(behind / "renamed")
    shutil.rmtree(behind / "d0")


def assert_arrived(behind: Path, watch: Watching) -> None:
    """After a flush, which sweeps by force."""
    answer = watch.run("flush")
    assert answer.returncode == 0, answer.stderr
    assert in_seconds(behind) == in_seconds(watch.target)


def alike(behind: Path, target: Path) -> bool:
    """Whether the trees are equal now; False while something comes or goes."""
    try:
        return in_seconds(behind) == in_seconds(target)
    except FileNotFoundError:
        return False


def in_seconds(root: Path) -> dict[bytes, Seen]:
    """A tree as SFTP can tell it: its times have no fractions."""
    return {path: seen._replace(mtime_ns=seen.mtime_ns // 10**9) for path, seen in read_tree(root).items()}


@pytest.mark.skipif(bool(missing()), reason=missing())
@pytest.mark.timeout(120)
def test_a_flush_sweeps_a_share(tmp_path: Path) -> None:
    behind = tmp_path / "behind"
    behind.mkdir()
    for number in range(50):
        (behind / f"f{number}").write_text(f"{number}")
    with (
        share(behind, tmp_path / "mount") as mount,
        watching(mount, tmp_path / "target", tmp_path / "home") as watch,
    ):
        for number in range(5):
            (mount / f"f{number}").write_text(f"changed {number}")
            (mount / f"f{number + 10}").unlink()
            assert_arrived(behind, watch)
