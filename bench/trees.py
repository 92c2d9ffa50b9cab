"""Trees to mirror. The same arguments always make the same bytes.

Times of entries are left as they fall: nothing that is measured depends on them.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

LOCK = Path(__file__).parent / "node"
GIT = ("git", "-c", "user.name=bench", "-c", "user.email=bench@localhost", "-c", "gc.auto=0", "-c", "core.fsync=none")
WORDS = (
    "core",
    "util",
    "view",
    "model",
    "store",
    "route",
    "parse",
    "build",
    "cache",
    "event",
    "index",
    "types",
    "state",
)


@dataclass(frozen=True, slots=True)
class Tree:
    """A recipe: `make` fills an empty directory; `mebibytes` and `inodes` are what its filesystem needs, mirror included."""

    name: str
    make: Callable[[Path], None]
    mebibytes: int
    inodes: int


def text(rng: random.Random, size: int) -> bytes:
    """`size` bytes that look like source code to a compressor and differ from call to call."""
    seed = rng.getrandbits(64)
    line = b"export const %016x = (state) => state.%s + %d;\n" % (seed, rng.choice(WORDS).encode(), seed % 977)
    return (line * (size // len(line) + 1))[:size]


def write(path: Path, content: bytes) -> None:
    """Make a file, and the directory it is in."""
    try:
        path.write_bytes(content)
    except FileNotFoundError:
        path.parent.mkdir(parents=True)
        path.write_bytes(content)


def project(root: Path, files: int = 3_000) -> None:
    """A source tree in which a person works: `files` files of some 4 KiB, 10 to a directory."""
    rng = random.Random(f"project {files}")
    for number in range(files):
        place = root / rng_path(number // 10) / f"{WORDS[number % len(WORDS)]}_{number}.ts"
        write(place, text(rng, int(rng.lognormvariate(7.8, 0.9)) % 60_000))


def rng_path(number: int) -> str:
    """A directory for a number: at most 12 entries wide, so that trees are as deep as real ones."""
    parts = []
    while True:
        number, digit = divmod(number, 12)
        parts.append(WORDS[digit])
        if not number:
            return "/".join(reversed(parts))


def node_modules(root: Path, files: int = 23_000, mebibytes: int = 400) -> None:
    """What `npm ci` leaves behind: packages of very different size, many tiny files, few large ones, links in `.bin`."""
    rng = random.Random(f"node_modules {files} {mebibytes}")
    sizes = [int(rng.lognormvariate(7.6, 1.8)) for _ in range(files)]
    scale = mebibytes * 2**20 / sum(sizes)
    sizes = [min(int(size * scale) + 1, 30_000_000) for size in sizes]
    package, number = 0, 0
    bins = root / "node_modules" / ".bin"
    bins.mkdir(parents=True)
    while number < files:
        name = f"@scope{package % 7}/pkg-{package}" if package % 5 == 0 else f"pkg-{package}"
        top = root / "node_modules" / name
        for index in range(min(int(rng.lognormvariate(2.9, 1.1)) + 2, files - number)):
            where = "" if index < 3 else rng_path(index // 8)
            write(top / where / f"{WORDS[index % len(WORDS)]}-{index}.js", text(rng, sizes[number]))
            number += 1
        if package % 4 == 0:
            (bins / f"pkg-{package}").symlink_to(f"../{name}/core-0.js")
        package += 1


def real_node_modules(root: Path) -> None:
    """The packages that `bench/node/package-lock.json` pins, without running their scripts. Needs npm and a registry."""
    for name in ("package.json", "package-lock.json"):
        shutil.copy(LOCK / name, root / name)
    subprocess.run(
        ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"],
        cwd=root,
        check=True,
        timeout=600,
        stdout=subprocess.DEVNULL,
    )


def repository(root: Path, files: int = 3_000, apart: int = 2_000) -> None:
    """A git repository whose branches `left` (checked out) and `right` are `apart` files apart.

    Of those four fifths differ in content, a tenth is only in the one and a tenth only in the other.
    """
    git(root, "init", "-q", "-b", "left")
    rng = random.Random(f"repository {files} {apart}")
    only = apart // 10
    changed = apart - 2 * only
    names = [f"{rng_path(number // 10)}/{WORDS[number % len(WORDS)]}_{number}.ts" for number in range(files + only)]
    order = rng.sample(range(files + only), files + only)
    new, gone, other = order[:only], order[only : 2 * only], order[2 * only : 2 * only + changed]
    for number in sorted(set(order) - set(new)):
        write(root / names[number], text(rng, int(rng.lognormvariate(7.8, 0.9)) % 60_000))
    git(root, "add", "-A")
    git(root, "commit", "-q", "-m", "left")
    git(root, "checkout", "-q", "-b", "right")
    for number in (*new, *other):
        write(root / names[number], text(rng, int(rng.lognormvariate(7.8, 0.9)) % 60_000))
    for number in gone:
        (root / names[number]).unlink()
    git(root, "add", "-A")
    git(root, "commit", "-q", "-m", "right")
    git(root, "checkout", "-q", "left")


def git(root: Path, *arguments: str) -> str:
    """What git says, run in `root` without the settings of the person who runs it."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    done = subprocess.run(
        [*GIT, *arguments],
        cwd=root,
        check=True,
        env=clean | {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull},
        capture_output=True,
        text=True,
    )
    return done.stdout


def sizes(root: Path, revision: str) -> dict[str, int]:
    """The bytes of every file of a revision."""
    listed = (line.split(maxsplit=4) for line in git(root, "ls-tree", "-r", "-l", revision).splitlines())
    return {path: int(size) for _, _, _, size, path in listed}


def many(root: Path, files: int) -> None:
    """`files` small files, 100 to a directory: for what grows with their number alone."""
    descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for number in range(files):
            directory, name = divmod(number, 100)
            if name == 0:
                os.makedirs(root / f"d{directory // 100}/e{directory % 100}")
                os.close(descriptor)
                descriptor = os.open(root / f"d{directory // 100}/e{directory % 100}", os.O_RDONLY | os.O_DIRECTORY)
            out = os.open(f"file-{number}", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644, dir_fd=descriptor)
            os.write(out, b"number %d of %d\n" % (number, files) * 4)
            os.close(out)
    finally:
        os.close(descriptor)


def sixty_changes(root: Path) -> None:
    """What a morning's work leaves: 40 files edited (10 of them without changing their size), 10 new, 10 removed."""
    rng = random.Random("sixty")
    every = sorted(walk(root))
    chosen = [path for path in rng.sample(every, min(len(every), 1_000)) if 50 <= path.lstat().st_size <= 200_000][:50]
    for index, path in enumerate(chosen[:40]):
        old = path.read_bytes()
        path.write_bytes(text(rng, len(old)) if index < 10 else old + text(rng, 200))
    for index, path in enumerate(chosen[30:40]):
        write(path.with_name(f"new-{index}.ts"), text(rng, 3_000))
    for path in chosen[40:]:
        path.unlink()


def walk(root: Path) -> Iterator[Path]:
    """Every regular file below `root`."""
    for directory, _, names in os.walk(root):
        for name in names:
            if not os.path.islink(path := os.path.join(directory, name)):
                yield Path(path)


PROJECT = Tree("project", project, 512, 40_000)
REPOSITORY = Tree("repository", repository, 768, 60_000)
NODE = Tree("node_modules", node_modules, 2_048, 160_000)
REAL_NODE = Tree("real node_modules", real_node_modules, 2_560, 200_000)


def flat(files: int) -> Tree:
    """The recipe for `many` of a number."""
    return Tree(f"{files // 1000}k", lambda root: many(root, files), 512 + files // 64, files * 3 + 20_000)
