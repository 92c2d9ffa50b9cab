"""A git repository with a long past, made by `git fast-import` in a moment; the same one for the same seed."""

from __future__ import annotations

import os
import random
import subprocess
from pathlib import Path

ENVIRONMENT = {
    "GIT_AUTHOR_NAME": "A",
    "GIT_AUTHOR_EMAIL": "a@example.com",
    "GIT_COMMITTER_NAME": "A",
    "GIT_COMMITTER_EMAIL": "a@example.com",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_EDITOR": "true",
}
START = 1_600_000_000


def git(where: Path, *arguments: str, ok: bool = True) -> str:
    """What a git command says. It has to succeed if `ok`, and to fail otherwise."""
    done = subprocess.run(
        ["git", "-c", "advice.detachedHead=false", *arguments],
        cwd=where, env=os.environ | ENVIRONMENT, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert (done.returncode == 0) is ok, f"git {arguments}: {done.returncode} {done.stdout}{done.stderr}"
    return done.stdout


class Past:
    """Writes a history as a stream for fast-import."""

    def __init__(self, seed: int, files: int) -> None:
        self.random = random.Random(seed)
        self.now = {f"src/m{number % 23}/f{number}.py" for number in range(files)}
        self.stream: list[bytes] = []
        self.number = 0

    def body(self) -> bytes:
        lines = self.random.choice((0, 1, 5, 40, 400))
        return b"".join(b"%d: %x\n" % (line, self.random.getrandbits(80)) for line in range(lines))

    def put(self, path: str) -> None:
        body = self.body()
        mode = self.random.choice(("100644", "100644", "100644", "100755"))
        self.stream.append(f"M {mode} inline {path}\ndata {len(body)}\n".encode() + body + b"\n")
        self.now.add(path)

    def drop(self, path: str) -> None:
        self.stream.append(f"D {path}\n".encode())
        self.now.discard(path)

    def commit(self) -> None:
        """One commit: a few edits, now and then a directory that moves or a file that becomes a directory."""
        message = f"commit {self.number}"
        self.stream.append(
            f"commit refs/heads/main\ncommitter A <a@example.com> {START + self.number * 60} +0000\n"
            f"data {len(message)}\n{message}\n".encode()
        )
        if self.number == 0:
            for path in sorted(self.now):
                self.put(path)
        paths = sorted(self.now)
        for path in self.random.sample(paths, min(len(paths), self.random.choice((1, 2, 3, 30)))):
            if path not in self.now:
                continue
            choice = self.random.random()
            if choice < 0.7:
                self.put(path)
            elif choice < 0.8:
                self.drop(path)
            elif choice < 0.9:
                self.put(f"src/new{self.number % 50}/deep/f{self.number}.py")
            elif choice < 0.95:
                self.drop(path)
                self.put(f"{path}/now/a/directory")
            else:
                folder = path.rsplit("/", 1)[0]
                for inner in [each for each in paths if each in self.now and each.startswith(folder + "/")]:
                    self.drop(inner)
                    self.put(inner.replace(folder, f"{folder}x", 1))
        self.number += 1


def make_repository(where: Path, commits: int, seed: int = 7, files: int = 300) -> None:
    """A repository with so many commits on `main`, tagged `c0` … ; checked out at the last one."""
    where.mkdir(exist_ok=True)
    git(where, "init", "-q", "-b", "main", ".")
    past = Past(seed, files)
    for number in range(commits):
        past.commit()
        past.stream.append(f"reset refs/tags/c{number}\nfrom refs/heads/main\n\n".encode())
    done = subprocess.run(
        ["git", "fast-import", "--quiet"], cwd=where, env=os.environ | ENVIRONMENT,
        input=b"".join(past.stream), capture_output=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()
    git(where, "checkout", "-q", "-f", "main")
