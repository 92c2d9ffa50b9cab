"""Fixtures for all tests: kernels, trees on disk, mounts."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from syncd.kernel.choose import load
from syncd.kernel.contract import Kernel
from tests.trees import Literal, build

pytest_plugins = ["tests.skips"]

# A native body that cannot be imported fails its tests; only SYNCD_KERNEL=pure leaves it out.
KERNELS = ["pure"] if os.environ.get("SYNCD_KERNEL") == "pure" else ["native", "pure"]


@pytest.fixture(params=KERNELS, ids=str)
def kernel(request: pytest.FixtureRequest) -> Kernel:
    """Each body of the kernel."""
    return load(request.param)


@pytest.fixture
def tree() -> Callable[[Path, Literal], Path]:
    """Makes a tree on disk from a literal and returns its path."""

    def make(top: Path, literal: Literal) -> Path:
        build(top, literal)
        return top

    return make


class Mounts:
    """Makes filesystems and unmounts them in the end, whatever happened."""

    def __init__(self, top: Path) -> None:
        self.top = top
        self.made: list[Path] = []

    def _place(self, name: str) -> Path:
        place = self.top / name
        place.mkdir()
        return place

    def _mount(self, place: Path, *arguments: str) -> Path:
        subprocess.run(["mount", *arguments, str(place)], check=True, capture_output=True)
        self.made.append(place)
        return place

    def tmpfs(self, name: str, size: str = "1m") -> Path:
        """A small filesystem in memory."""
        return self._mount(self._place(name), "-t", "tmpfs", "-o", f"size={size}", "tmpfs")

    def ext4(self, name: str, megabytes: int = 8) -> Path:
        """A small filesystem on a loop device."""
        image = self.top / f"{name}.img"
        with image.open("wb") as file:
            file.truncate(megabytes << 20)
        make = ["mkfs.ext4", "-q", "-O", "^has_journal", "-E", "lazy_itable_init=0,root_owner=0:0", str(image)]
        subprocess.run(make, check=True, capture_output=True)
        return self._mount(self._place(name), "-o", "loop", str(image))

    def bind(self, source: Path, place: Path) -> Path:
        """Another way into a directory."""
        return self._mount(place, "--bind", str(source))

    def read_only(self, place: Path) -> None:
        """Make one of the mounts read-only."""
        subprocess.run(["mount", "-o", "remount,ro", str(place)], check=True, capture_output=True)

    def unmount(self, place: Path) -> None:
        """Unmount now."""
        subprocess.run(["umount", "-l", str(place)], check=True, capture_output=True)
        self.made.remove(place)

    def close(self) -> None:
        """Unmount what is left, the last one first."""
        for place in reversed(self.made):
            subprocess.run(["umount", "-l", str(place)], check=False, capture_output=True)
        self.made.clear()


@pytest.fixture
def mounts(tmp_path: Path) -> Iterator[Mounts]:
    """Makes filesystems."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount")
    made = Mounts(tmp_path)
    try:
        yield made
    finally:
        made.close()
