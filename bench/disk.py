"""A fresh filesystem for every run.

ext4 remembers: after large removals the same work can take several times as long for a while. So each run gets an
image of its own: mkfs, mount, the tree copied in and flushed, so that neither cold reads nor the flush of what was just
written fall into what is measured. At its end the filesystem is shut down and thrown away unflushed. Images stand in
memory where there is enough of it, so that the disk below does not add its moods to the figures.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.trees import Tree

NEEDED_MIB = 8_192
GOING_DOWN = 0x8004587D  # EXT4_IOC_SHUTDOWN
NO_LOG_FLUSH = 2
NAMESPACE = "SYNCD_BENCH_NAMESPACE"


class NoDisk(Exception):
    """This machine lets us make no filesystem."""


class Scratch:
    """Where images, sockets and logs of one benchmark live. Removed at the end, mounted or not."""

    def __init__(self, where: Path | None = None) -> None:
        if os.geteuid() != 0:
            raise NoDisk("the benchmark mounts a fresh filesystem for every run: run it as root")
        for tool in ("mkfs.ext4", "mount", "umount"):
            if shutil.which(tool) is None:
                raise NoDisk(f"{tool} is missing")
        self.path = Path(tempfile.mkdtemp(prefix="syncd-bench-", dir=where or roomiest()))
        self.masters: dict[str, Path] = {}

    def close(self) -> None:
        """Unmount what is left and remove everything."""
        for line in reversed(Path("/proc/self/mounts").read_text().splitlines()):
            point = line.split()[1].replace("\\040", " ")
            if point.startswith(str(self.path)):
                unmount(Path(point))
        shutil.rmtree(self.path, ignore_errors=True)

    def master(self, tree: Tree) -> Path:
        """The tree on the scratch disk itself, made at the first call. Runs get copies of it."""
        if tree.name not in self.masters:
            start = time.monotonic()
            top = self.path / f"tree-{len(self.masters)}"
            top.mkdir()
            tree.make(top)
            self.masters[tree.name] = top
            print(f"  made the tree {tree.name}: {time.monotonic() - start:.1f} s", file=sys.stderr)
        return self.masters[tree.name]

    @contextmanager
    def fresh(self, tree: Tree) -> Iterator[Path]:
        """A new filesystem with a copy of the tree under `src`: flushed, and in the cache of every run alike."""
        image = self.path / "run.img"
        try:
            with image.open("wb") as file:
                file.truncate(tree.mebibytes * 2**20)
            run("mkfs.ext4", "-q", "-F", "-m", "0", "-N", str(tree.inodes), "-E", "lazy_itable_init=0", str(image))
            with self.mounted(image) as top:
                run("cp", "-a", str(self.master(tree)), str(top / "src"))
                run("sync", "--file-system", str(top))
                touch_memory(tree.mebibytes)
                yield top
                shut_down(top)
        finally:
            image.unlink(missing_ok=True)

    @contextmanager
    def mounted(self, image: Path) -> Iterator[Path]:
        """`image` mounted on a directory of its own."""
        point = Path(tempfile.mkdtemp(prefix="mnt-", dir=self.path))
        run("mount", "-o", "loop", str(image), str(point))
        try:
            yield point
        finally:
            unmount(point)
            point.rmdir()


def enter_namespace() -> None:
    """Begin anew in a mount namespace of our own, once, if the system lets us.

    Mounts of others then wake nobody who is measured (a watch listens to the mount table), ours disturb nobody, and
    all of them go with us, also after SIGKILL.
    """
    if os.environ.get(NAMESPACE) or os.geteuid() != 0 or shutil.which("unshare") is None:
        return
    trial = ["unshare", "--mount", "--propagation", "private", "--"]
    if subprocess.run([*trial, "true"], capture_output=True, check=False).returncode == 0:
        os.environ[NAMESPACE] = "1"
        os.execvp(trial[0], [*trial, sys.executable, "-m", "bench.run", *sys.argv[1:]])


def roomiest() -> Path:
    """Memory if at least 8 GiB of it are free, else the disk."""
    memory = Path("/dev/shm")
    free = next(int(x.split()[1]) for x in Path("/proc/meminfo").read_text().splitlines() if x.startswith("MemAvail"))
    if memory.is_dir() and free > NEEDED_MIB * 1024 and shutil.disk_usage(memory).free > NEEDED_MIB * 2**20:
        return memory
    return Path("/var/tmp")


def shut_down(top: Path) -> None:
    """Tell ext4 to forget what it has not written yet: nobody will read this image again, so unmounting need not flush."""
    descriptor = os.open(top, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.ioctl(descriptor, GOING_DOWN, struct.pack("I", NO_LOG_FLUSH))
    except OSError:
        return  # an older kernel: unmounting takes its time
    finally:
        os.close(descriptor)


def touch_memory(mebibytes: int) -> None:
    """Use so much of the free memory once, as far as there is. The host of a virtual machine may have taken it back, and
    what touches it first waits for that: writing 12 GiB took 22 s, and 9 s at once after. A larger tree would suffer
    more than its share.
    """
    free = os.sysconf("SC_AVPHYS_PAGES") * mmap.PAGESIZE
    size = min(mebibytes << 20, free // 2)
    mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE).close()


def unmount(point: Path) -> None:
    """Unmount; what is still busy after 5 s is detached, so that nothing stays behind."""
    for _ in range(50):
        if subprocess.run(["umount", str(point)], capture_output=True, check=False).returncode == 0:
            return
        time.sleep(0.1)
    subprocess.run(["umount", "--lazy", str(point)], check=False)


def run(*command: str) -> None:
    """Run a tool that must succeed."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NoDisk(f"{' '.join(command)}: {done.stderr.strip() or done.returncode}")
