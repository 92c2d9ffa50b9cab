"""Attacks while a watch is busy: nothing outside is opened, read or changed, and a naive writer is fooled."""

from __future__ import annotations

import contextlib
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.attack.canary import Canary
from tests.compare import differences
from tests.integration.watching import Watching, watching

FILES = 6
SECRET = b"SECRET"
ATTACKERS_NAMES = (b"d/evil", b"file.evil", b"hard.evil", b"same.evil", b"naive")


class Scene:
    """A source and a target with what the attacker exchanges in them, and what lies outside.

    In the target: `d/sub` with a link outside, `file` with a FIFO, `hard` and `same` with hard links to outside
    files. In the source: `s/sub` with a link outside, `pipe` with a FIFO. `naive/sub` is for the naive writer.
    """

    def __init__(self, top: Path) -> None:
        self.source, self.target, self.home = top / "source", top / "target", top / "home"
        self.outside, self.others, self.naive = top / "outside", top / "others", top / "for-naive"
        for path in (
            self.source / "d" / "sub", self.source / "s" / "sub", self.target / "naive" / "sub",
            self.outside / "to-write", self.outside / "to-read", self.others, self.naive, top / "trash",
        ):  # fmt: skip
            path.mkdir(parents=True)
        self.trash = top / "trash"
        for number in range(FILES):
            (self.outside / "to-write" / f"f{number}").write_bytes(b"outside")
            (self.outside / "to-read" / f"f{number}").write_bytes(SECRET)
            (self.source / "s" / "sub" / f"f{number}").write_bytes(b"mirrored")
        # A hard link in the target *is* the outside file: to tell it from the mirrored one by its looks alone it
        # has a size of its own. One of the same size may be read to be compared; `others` holds that.
        (self.outside / "hard").write_bytes(b"outside, of a size that no version of it has")
        (self.others / "same").write_bytes(b"0" * 16)
        os.mkfifo(self.outside / "fifo")
        os.mkfifo(self.outside / "fifo-source")
        (self.source / "s" / "evil").symlink_to(self.outside / "to-read")
        os.link(self.outside / "fifo-source", self.source / "pipe.evil")
        self.held = [
            os.open(self.source, os.O_PATH),
            os.open(self.source / "d" / "sub", os.O_PATH),
            os.open(self.source / "s" / "sub", os.O_PATH),
        ]
        self.names = [(0, "file"), (0, "hard"), (0, "same"), (0, "pipe")]
        self.names += [(where, f"f{number}") for where in (1, 2) for number in range(FILES)]
        self.save_all(0)

    def close(self) -> None:
        for fd in self.held:
            os.close(fd)

    def save(self, number: int) -> None:
        """Save one file, below a directory held open, so that this is never led astray."""
        where, name = self.names[number % len(self.names)]
        fd = self.held[where]
        beside = number // len(self.names) % 2 == 0 or name == "pipe"
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
        opened = os.open(name + ".~tmp~" if beside else name, flags, 0o644, dir_fd=fd)
        os.write(opened, b"%016d" % number)
        os.close(opened)
        if beside:
            os.rename(name + ".~tmp~", name, src_dir_fd=fd, dst_dir_fd=fd)

    def save_all(self, number: int) -> None:
        for each in range(len(self.names)):
            self.save(number + each)

    def in_target(self) -> list[str]:
        return [
            "s", self.target / "d", "sub", "evil", self.outside / "to-write",
            "h", self.target, "file", "file.evil", self.outside / "fifo",
            "h", self.target, "hard", "hard.evil", self.outside / "hard",
            "h", self.target, "same", "same.evil", self.others / "same",
            "s", self.target / "naive", "sub", "evil", self.naive,
        ]  # fmt: skip

    def in_source(self) -> list[str]:
        return [
            "s", self.source / "s", "sub", "evil", self.outside / "to-read",
            "h", self.source, "pipe", "pipe.evil", self.outside / "fifo-source",
        ]  # fmt: skip


class Attacker:
    """A running `flip`. `flips` (of the first pair, a directory and a link), `others` and `armed` are known after `stop`."""

    def __init__(self, program: Path, pause_us: int, least: int, trash: Path, pairs: list[str]) -> None:
        trash.mkdir()
        self.process = subprocess.Popen(
            [program, str(pause_us), str(least), trash, *pairs], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self.flips = self.others = self.armed = 0

    def stop(self) -> None:
        """Let it end as soon as it has made its number."""
        assert self.process.stdin is not None
        self.process.stdin.close()

    def end(self, limit: float) -> None:
        self.process.wait(limit)
        assert self.process.stdout is not None
        out = self.process.stdout.read()
        self.flips, self.others, self.armed = map(int, out.split())

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                stream.close()


class Naive:
    """Writes by path strings and follows whatever links it meets. `fooled`: writes that went outside."""

    def __init__(self, scene: Scene) -> None:
        self.path = scene.target / "naive" / "sub" / "victim"
        self.outside = os.fsencode(scene.naive)
        self.fooled = self.writes = 0

    def write(self) -> None:
        with contextlib.suppress(OSError), open(self.path, "wb") as file:
            self.writes += 1
            file.write(b"naive")
            self.fooled += os.readlink(b"/proc/self/fd/%d" % file.fileno()).startswith(self.outside)


@contextlib.contextmanager
def attackers(scene: Scene, program: Path, least: int) -> Iterator[list[Attacker]]:
    """One in the target, as fast as may be but for a breath; one in the source, slow enough to be followed."""
    running = [
        Attacker(program, 1, least, scene.trash / "target", scene.in_target()),
        Attacker(program, 1500, least // 100, scene.trash / "source", scene.in_source()),
    ]
    try:
        yield running
    finally:
        for each in running:
            each.close()


def drain(watch: Watching) -> threading.Thread:
    """Read the watch's records, so that it never waits for a reader."""

    def read() -> None:
        with contextlib.suppress(AssertionError, ValueError):
            while True:
                watch.report()

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    return thread


def attack(top: Path, compiled: Callable[[str], Path], *, flips: int, fooled: int, limit: float) -> str:
    """Run it all until the attacker made its number of flips; return the figures in words."""
    scene = Scene(top)
    naive = Naive(scene)
    canary = Canary(scene.outside)
    try:
        with watching(scene.source, scene.target, scene.home) as watch:
            reader = drain(watch)
            began = time.monotonic()
            with attackers(scene, compiled("flip"), flips) as (in_target, in_source):
                saves = len(scene.names)
                in_target.stop()
                while in_target.process.poll() is None:
                    scene.save(saves)
                    saves += 1
                    for _ in range(5):
                        naive.write()
                    canary.read(0.012)  # saves come one by one: each is a cycle of its own, not all of them a burst
                    assert watch.process.poll() is None, watch.errors()
                    assert time.monotonic() - began < limit, "the attacker does not come off"
                in_source.stop()
                in_target.end(limit)
                in_source.end(limit)
            took = time.monotonic() - began
            assert in_target.flips + in_source.flips >= flips
            assert naive.fooled >= fooled
            scene.save_all(saves)  # what is left there is drift under the attacker's names, or in conflict with these
            flushed = watch.run("flush")
            assert flushed.returncode == 0, flushed.stdout + flushed.stderr
            cycles = int(watch.reports[-1]["cycle"])
            problems = watch.reports[-1]["problems"]
            assert watch.stop() == 0
            reader.join(limit)
        assert not differences(scene.source, scene.target, ATTACKERS_NAMES)
        assert not problems
        for path in (*scene.target.rglob("*"), *scene.home.rglob("conflicts/**/*")):
            if path.is_file() and not path.is_symlink() and path.stat().st_nlink == 1:
                assert SECRET not in path.read_bytes(), path
        assert (scene.others / "same").read_bytes() == b"0" * 16
        canary.check()
    finally:
        canary.close()
        scene.close()
    return (
        f"{in_target.flips} flips of a directory and {in_target.others} others in the target ({in_target.armed} lures "
        f"made anew), {in_source.flips} and {in_source.others} in the source, "
        f"{saves} saves, {cycles} cycles in {took:.1f} s; "
        f"the naive writer fooled {naive.fooled} times of {naive.writes}"
    )


@pytest.mark.kernel
def test_nothing_outside_is_touched(arena: Path, compiled: Callable[[str], Path]) -> None:
    """A few seconds of it: a twentieth of the flips, and of the naive writer's misfortune."""
    print(attack(arena, compiled, flips=5_000, fooled=50, limit=50))


@pytest.mark.kernel
@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("arena", ["tmpfs", "ext4"], indirect=True)
def test_nothing_outside_is_touched_in_a_long_attack(arena: Path, compiled: Callable[[str], Path]) -> None:
    print(attack(arena, compiled, flips=100_000, fooled=1000, limit=500))
