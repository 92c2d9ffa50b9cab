"""The machine as a test needs it: filesystems in loop images, mounts, limits. All of it goes away again."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

MKFS = {
    "ext4": (64, ["mkfs.ext4", "-q", "-F"]),
    "xfs": (320, ["mkfs.xfs", "-q", "-f"]),
    "btrfs": (128, ["mkfs.btrfs", "-q", "-f"]),
}

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")


def eventually(condition: Callable[[], object], why: str, limit: float = 30.0) -> None:
    """Wait until `condition` is true; fail with `why` after `limit` seconds."""
    deadline = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < deadline, why
        time.sleep(0.01)


def call(*command: str | Path) -> None:
    """Run a command that has to succeed."""
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, f"{command}: {done.stderr}"


def unmount(point: Path) -> None:
    """Unmount; nobody may hold it for long."""

    def done() -> bool:
        return subprocess.run(["umount", point], capture_output=True).returncode == 0

    eventually(done, f"{point} stays busy", limit=20)


@contextmanager
def mounted(point: Path, *arguments: str | Path) -> Iterator[Path]:
    """What `mount ARGUMENTS POINT` gives, until the end, whoever holds it then.

    All that is mounted there goes; it is not asked first, since one that is broken does not look like a mount.
    """
    point.mkdir(exist_ok=True)
    call("mount", *arguments, point)
    try:
        yield point
    finally:
        while subprocess.run(["umount", "-l", point], capture_output=True).returncode == 0:
            pass


@contextmanager
def image(fstype: str, at: Path) -> Iterator[Path]:
    """A fresh filesystem of that type in a file, not mounted."""
    megabytes, command = MKFS[fstype]
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    with open(at, "wb") as file:
        file.truncate(megabytes << 20)
    try:
        call(*command, at)
        yield at
    finally:
        at.unlink()


@contextmanager
def loop(fstype: str, point: Path) -> Iterator[Path]:
    """A fresh filesystem of that type mounted at `point`; its image stands beside it."""
    with image(fstype, point.with_name(f"{point.name}.{fstype}")) as file, mounted(point, "-o", "loop", file):
        yield point


@contextmanager
def tmpfs(point: Path, size: str = "16m") -> Iterator[Path]:
    """An empty filesystem in memory."""
    with mounted(point, "-t", "tmpfs", "-o", f"size={size}", f"syncd-test-{point.name}"):
        yield point


@contextmanager
def overlayfs(point: Path) -> Iterator[Path]:
    """An overlay at `point`, its layers on a tmpfs beside it. The lower one holds `image/file`."""
    with tmpfs(point.with_name(f"{point.name}.layers")) as layers:
        for name in ("lower", "upper", "work", "lower/image"):
            (layers / name).mkdir()
        (layers / "lower" / "image" / "file").write_text("from the lower layer")
        options = f"lowerdir={layers}/lower,upperdir={layers}/upper,workdir={layers}/work"
        with mounted(point, "-t", "overlay", "-o", options, f"syncd-test-{point.name}"):
            yield point


@contextmanager
def sysctl(name: str, value: int) -> Iterator[None]:
    """Another value of a system-wide setting, one test at a time, put back at the end."""
    file = Path("/proc/sys", name)
    with open(Path(tempfile.gettempdir(), "syncd-test-sysctl.lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        before = file.read_text()
        file.write_text(str(value))
        try:
            yield
        finally:
            file.write_text(before)
