"""A filesystem that is shut down while syncd writes to it: what reached its log is all that is left.

The target stands on it, the state elsewhere. After a mount and a restart the target is equal, and nothing
of syncd's own is taken for a container's work.
"""

from __future__ import annotations

import fcntl
import json
import os
import random
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.compare import assert_equal
from tests.integration.watching import SYNCD, environment, run, watching
from tests.machine import call, eventually, image, needs_root, unmount

pytestmark = [pytest.mark.kernel, needs_root, pytest.mark.timeout(300)]

SHUTDOWN = 0x8004587D  # _IOR('X', 125, __u32): the same call on ext4 and xfs
FLUSH_LOG, LOST_LOG = 1, 2  # the log reaches the disk without the data, or not even that


def shut_down(mount: Path, how: int) -> None:
    fd = os.open(mount, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.ioctl(fd, SHUTDOWN, struct.pack("I", how))
    finally:
        os.close(fd)


@contextmanager
def disk(fstype: str, point: Path) -> Iterator[str]:
    """A mounted image that can be mounted again; gives its device, which stays while it is not mounted."""
    point.mkdir()
    with image(fstype, point.with_suffix(f".{fstype}")) as file:
        done = subprocess.run(["losetup", "--find", "--show", file], capture_output=True, text=True, check=True)
        device = done.stdout.strip()
        try:
            call("mount", device, point)
            yield device
        finally:
            while subprocess.run(["umount", "-l", point], capture_output=True).returncode == 0:
                pass
            call("losetup", "--detach", device)


def mount_again(device: str, point: Path) -> None:
    """Unmount, and mount afresh. A process in a mount namespace of its own may keep the old one alive for a while."""

    def is_fresh() -> bool:
        unmount(point)
        call("mount", device, point)
        try:
            os.listdir(point)
        except OSError:
            return False
        return True

    eventually(is_fresh, f"{device} stays shut down")


def fill(source: Path, choose: random.Random, files: int) -> None:
    """Write a share of the files anew: by rename, in place, larger and smaller ones."""
    for number in range(files):
        path = source / f"d{number % 13}" / f"f{number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        size = choose.choice((0, 40, 3000, 9000, 160_000))
        beside = path.with_name("beside")
        beside.write_bytes((b"%d %d " % (number, choose.getrandbits(60))).ljust(size, b"."))
        if choose.random() < 0.5:
            beside.rename(path)
        else:
            path.write_bytes(beside.read_bytes())
            beside.unlink()


@pytest.mark.parametrize("how", [FLUSH_LOG, LOST_LOG], ids=["log-flushed", "log-lost"])
@pytest.mark.parametrize("fstype", ["ext4", "xfs"])
def test_shut_down_in_mid_write(tmp_path: Path, fstype: str, how: int) -> None:
    source, point, home = tmp_path / "source", tmp_path / "disk", tmp_path / "home"
    target = point / "target"
    choose = random.Random(how)
    env = environment(home)
    source.mkdir()
    fill(source, choose, 200)
    with disk(fstype, point) as device:
        assert run("sync", str(source), str(target), env=env).returncode == 0
        (target / "the container's").write_text("made")
        (target / "d1" / "also").write_text("made too")
        subprocess.run(["sync", "-f", str(target)], check=True)
        struck = 0
        for turn in range(30):  # a run that ends before the shutdown is checked like the others, and not counted
            before = changed(target)
            fill(source, choose, 200 + 50 * (turn % 3))
            (source / f"d{turn % 13}" / f"f{turn}").unlink()
            process = subprocess.Popen(
                [*SYNCD, "sync", str(source), str(target), "--json"],
                env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
            )  # fmt: skip
            try:
                eventually(lambda before=before: changed(target) - before, "nothing is written")  # type: ignore[misc]
                shut_down(point, how)
                code = process.wait(60)
                assert code in (0, 1, 3, 5)
                struck += code != 0
                assert process.stderr is not None
                said = process.stderr.read().decode()
                assert "Traceback" not in said
            finally:
                process.kill()
                process.wait()
                assert process.stderr is not None
                process.stderr.close()
            mount_again(device, point)
            again = run("sync", str(source), str(target), "--json", env=env)
            assert again.returncode == 0, again.stderr
            record = json.loads(again.stdout)
            assert record["halt"] is None
            assert (target / "the container's").read_text() == "made"
            assert (target / "d1" / "also").read_text() == "made too"
            made = {b"the container's", b"d1/also", b".syncd"}
            assert_equal(source, target, leave_out=made)
            assert set(record["drift"]) <= {"made"}, record["drift"]
            assert record["drift"].get("made", 0) <= 2, "something of its own is taken for the container's"
            assert run("verify", str(source), str(target), env=env).returncode == 0
            assert [name for top in (point, home) for name in top.rglob("new-*")] == []
            if struck == 3:
                break
        assert struck == 3, f"only {struck} runs were in mid-write"


@pytest.mark.parametrize("fstype", ["ext4", "xfs"])
def test_a_removal_that_the_disk_forgets_is_done_again(tmp_path: Path, fstype: str) -> None:
    """More of them than the guard lets pass without a trace; what the container made there since stays."""
    source, point, home = tmp_path / "source", tmp_path / "disk", tmp_path / "home"
    target = point / "target"
    env = environment(home)
    source.mkdir()
    fill(source, random.Random(9), 400)
    with disk(fstype, point) as device:
        assert run("sync", str(source), str(target), env=env).returncode == 0
        (target / "d2" / "made").write_text("by the container")
        (target / "d3" / "f3").write_text("changed by the container")
        subprocess.run(["sync", "-f", str(target)], check=True)
        with watching(source, target, home) as watch:
            for old in ("another one", "and one more"):  # of which no checkpoint knows
                (source / "d12" / "f12").write_text(old)
                assert watch.flush() == 0
            subprocess.run(["sync", "-f", str(target)], check=True)
            (source / "d12" / "f12").write_text("the last")
            assert watch.flush() == 0
            (source / "d12" / "f12").unlink()
            for number in range(12):
                if number != 3:
                    shutil.rmtree(source / f"d{number}")
            assert watch.flush() == 0
            assert not (target / "d1").exists()
            shut_down(point, LOST_LOG)
            watch.process.kill()
            watch.process.wait()
        mount_again(device, point)
        assert (target / "d1" / "f1").exists(), "the disk remembers: nothing is shown here"
        assert (target / "d12" / "f12").read_text() == "and one more"
        again = run("sync", str(source), str(target), "--json", env=env)
        assert again.returncode == 0, again.stderr + again.stdout
        assert not (target / "d1").exists()
        assert not (target / "d12" / "f12").exists()
        assert os.listdir(target / "d2") == ["made"]
        kept = [path.read_text() for path in [*home.rglob("f3"), *target.parent.rglob("f3")]]
        assert "changed by the container" in kept


def changed(target: Path) -> set[tuple[str, int]]:
    """Names and times of what stands in a few directories: other ones show that something was written."""
    seen = set()
    for folder in sorted(target.glob("d*")):
        try:
            seen |= {(entry.path, entry.stat(follow_symlinks=False).st_ctime_ns) for entry in os.scandir(folder)}
        except OSError:
            continue
    return seen


def test_a_watch_lives_through_it(tmp_path: Path) -> None:
    """The same with a watch that goes on running: it waits. The next run reads everything, the one after it no more."""
    source, point, home = tmp_path / "source", tmp_path / "disk", tmp_path / "home"
    source.mkdir()
    choose = random.Random(5)
    fill(source, choose, 60)
    with disk("ext4", point) as device:
        with watching(source, point / "target", home) as watch:
            shut_down(point, FLUSH_LOG)
            fill(source, choose, 30)
            eventually(lambda: watch.status()["problems"] or watch.status()["halt"], "no word of it")
            assert watch.flush() in (3, 5)
            assert watch.process.poll() is None
            assert watch.stop() > 0
        mount_again(device, point)
        said = []
        for _ in range(2):
            again = run("sync", str(source), str(point / "target"), env=environment(home))
            assert again.returncode == 0
            said.append("end cleanly" in again.stderr)
            assert_equal(source, point / "target", leave_out={b".syncd"})
        assert said == [True, False]


if sys.platform != "linux":
    pytest.skip("the call is Linux's", allow_module_level=True)
