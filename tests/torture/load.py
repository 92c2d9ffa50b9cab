"""Random work in a directory, in the manner of fsstress: run as `python load.py ROOT SEED SECONDS`."""

from __future__ import annotations

import os
import random
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path


class Load:
    """Random operations below one directory. Names come from a small set, so that they collide."""

    def __init__(self, root: Path, seed: int) -> None:
        self.root = root
        self.random = random.Random(seed)
        self.done = 0

    def path(self) -> Path:
        """A random path, at most four levels deep."""
        depth = self.random.randint(1, 4)
        return self.root.joinpath(*(f"n{self.random.randint(0, 12)}" for _ in range(depth)))

    def body(self) -> bytes:
        """Random content, mostly small."""
        return os.urandom(self.random.choice((0, 1, 100, 5000, 140_000, 2_000_000)))

    def write(self) -> None:
        self.path().write_bytes(self.body())

    def append(self) -> None:
        with self.path().open("ab") as file:
            file.write(self.body())

    def replace(self) -> None:
        path = self.path()
        beside = path.with_name("beside")
        beside.write_bytes(self.body())
        beside.rename(path)

    def truncate(self) -> None:
        os.truncate(self.path(), self.random.randint(0, 200_000))

    def mkdir(self) -> None:
        self.path().mkdir(parents=True)

    def rename(self) -> None:
        self.path().rename(self.path())

    def remove(self) -> None:
        path = self.path()
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()

    def symlink(self) -> None:
        self.path().symlink_to(f"n{self.random.randint(0, 12)}")

    def link(self) -> None:
        os.link(self.path(), self.path(), follow_symlinks=False)

    def chmod(self) -> None:
        path = self.path()
        if not path.is_symlink():
            path.chmod(self.random.choice((0o600, 0o644, 0o755, 0o700)))

    def utime(self) -> None:
        os.utime(self.path(), ns=(0, self.random.getrandbits(60)), follow_symlinks=False)

    def burst(self) -> None:
        top = self.path()
        top.mkdir(parents=True)
        for number in range(self.random.randint(5, 400)):
            (top / f"b{number}").write_bytes(b"%d" % number)

    def run(self, seconds: float) -> None:
        """Work for so long; what fails, fails."""
        works: list[Callable[[], None]] = [
            self.write, self.write, self.append, self.replace, self.replace, self.truncate, self.mkdir, self.rename,
            self.remove, self.symlink, self.link, self.chmod, self.utime, self.burst,
        ]  # fmt: skip
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                self.random.choice(works)()
            except OSError:
                continue
            self.done += 1


if __name__ == "__main__":
    load = Load(Path(sys.argv[1]), int(sys.argv[2]))
    load.run(float(sys.argv[3]))
    print(load.done)
