"""`make demo`: a real tree is mirrored, edited while you watch, and the lag of each edit is printed.

The tree is a copy of this project's own files. The lag is measured from outside: the clock starts before the call
that ends an edit, and stops when a second look at the target shows the bytes (or the absence) that the source has.
Everything happens in a temporary directory that is removed at the end, also after Ctrl-C.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench import compare
from bench.trees import walk

ROOT = Path(__file__).resolve().parent.parent
PARTS = (
    "syncd",
    "native",
    "tests",
    "bench",
    "docs",
    "changelog.d",
    "README.md",
    "pyproject.toml",
    "Makefile",
    "LICENSE",
)
LEFT_OUT = shutil.ignore_patterns("target", "__pycache__", "*.so", "results", ".*_cache")
SYNCD = Path(sys.executable).with_name("syncd")
PATIENCE = 10.0  # seconds until an edit counts as lost


class Lost(Exception):
    """Something did not arrive, or the mirror did not start."""


@dataclass(frozen=True, slots=True)
class Stage:
    """The two sides and where the mirror keeps its state."""

    source: Path
    target: Path
    env: dict[str, str]


def main() -> int:
    """Show it. 0 when every edit arrived and both sides are equal at the end."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="syncd-demo-") as temporary:
        top = Path(temporary)
        state = {f"XDG_{name}": str(top / "state") for name in ("STATE_HOME", "CONFIG_HOME", "RUNTIME_DIR")}
        (top / "state").mkdir(mode=0o700)
        stage = Stage(top / "shop", top / "mirror", os.environ | state)
        files = furnish(stage.source)
        say(f"a tree of {files} files: {stage.source}")
        watch = [str(SYNCD), "watch", str(stage.source), str(stage.target)]
        say(f"$ syncd watch {stage.source} {stage.target}")
        start = time.monotonic()
        with (top / "log").open("wb") as log:
            mirror = subprocess.Popen(
                watch, env=stage.env, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        try:
            say(f"in sync after {in_sync(stage, mirror) - start:.2f} s, process start included\n")
            for name, edit in EDITS:
                time.sleep(0.4)
                say(f"{name:<62} {until_equal(stage, edit) * 1000:9.2f} ms")
            say("")
            show(stage, "status")
            difference = compare.equal(stage.source, stage.target)
            if difference:
                raise Lost(f"not equal: {difference}")
            say("compared byte by byte: equal")
        except Lost as error:
            say(f"demo: {error}\n{(top / 'log').read_text(errors='replace')}")
            return 1
        finally:
            mirror.terminate()
            try:
                mirror.wait(10)
            except subprocess.TimeoutExpired:
                mirror.kill()
    return 0


def say(text: str) -> None:
    """Print at once."""
    print(text, flush=True)


def furnish(source: Path) -> int:
    """Copy this project's files, and tell how many."""
    source.mkdir()
    for part in PARTS:
        if (ROOT / part).is_dir():
            shutil.copytree(ROOT / part, source / part, ignore=LEFT_OUT, symlinks=True)
        elif (ROOT / part).is_file():
            shutil.copy2(ROOT / part, source / part)
    return sum(1 for _ in walk(source))


def in_sync(stage: Stage, mirror: subprocess.Popen[bytes]) -> float:
    """When `syncd flush` first says that all is in the target."""
    end = time.monotonic() + 60
    while time.monotonic() < end and mirror.poll() is None:
        flush = [str(SYNCD), "flush", str(stage.source), str(stage.target)]
        if subprocess.run(flush, env=stage.env, capture_output=True, check=False).returncode == 0:
            return time.monotonic()
        time.sleep(0.05)
    raise Lost("the mirror did not start")


def show(stage: Stage, command: str) -> None:
    """Run a command on the pair, as a person would."""
    say(f"$ syncd {command} {stage.source} {stage.target}")
    subprocess.run([str(SYNCD), command, str(stage.source), str(stage.target)], env=stage.env, check=False)


def until_equal(stage: Stage, edit: Callable[[Path], tuple[float, list[str]]]) -> float:
    """Do an edit; seconds from its last step until every path it names is the same on both sides."""
    start, waiting = edit(stage.source)
    while waiting := [path for path in waiting if not same(stage, path)]:
        if time.monotonic() - start > PATIENCE:
            raise Lost(f"{waiting[0]} did not arrive within {PATIENCE:.0f} s")
        time.sleep(0.0001)
    return time.monotonic() - start


def same(stage: Stage, path: str) -> bool:
    """Whether both sides hold the same file, directory or nothing there."""
    left, right = stage.source / path, stage.target / path
    if left.is_dir() or not left.exists():
        return left.is_dir() == right.is_dir() and left.exists() == right.exists()
    try:
        return left.read_bytes() == right.read_bytes()
    except OSError:
        return False


# --- edits: each returns when its last step began, and the paths that it touched ---------------------------


def in_place(source: Path) -> tuple[float, list[str]]:
    """A save that writes into the file, as vim and `sed` without a backup do."""
    with (source / "README.md").open("a") as file:
        file.write("\nsaved in place\n")
        start = time.monotonic()
    return start, ["README.md"]


def by_rename(source: Path) -> tuple[float, list[str]]:
    """A save that writes beside and renames over, as most editors do."""
    path = source / "syncd/errors.py"
    beside = path.with_suffix(".new")
    beside.write_text(path.read_text() + "# saved by rename\n")
    start = time.monotonic()
    beside.rename(path)
    return start, ["syncd/errors.py", "syncd/errors.new"]


def new_directory(source: Path) -> tuple[float, list[str]]:
    """A directory in a directory, with a file in each."""
    start = time.monotonic()
    (source / "shop/cart").mkdir(parents=True)
    (source / "shop/prices.py").write_text("PRICES = {}\n")
    (source / "shop/cart/view.py").write_text("def view(): ...\n")
    return start, ["shop/prices.py", "shop/cart/view.py"]


def moved_directory(source: Path) -> tuple[float, list[str]]:
    """A directory with everything in it gets another name."""
    start = time.monotonic()
    (source / "shop").rename(source / "store")
    return start, ["shop", "store/prices.py", "store/cart/view.py"]


def removal(source: Path) -> tuple[float, list[str]]:
    """One file goes. A removal waits a moment, since editors remove and make again."""
    start = time.monotonic()
    (source / "LICENSE").unlink()
    return start, ["LICENSE"]


def burst(source: Path) -> tuple[float, list[str]]:
    """What a branch switch does: many files removed and written anew in one go. The clock starts at its end."""
    paths = sorted(path for path in walk(source) if path.suffix in (".py", ".rs"))
    for path in paths:
        text = path.read_bytes()
        path.unlink()
        path.write_bytes(text + b"\n")
    start = time.monotonic()
    return start, [str(path.relative_to(source)) for path in paths]


EDITS: tuple[tuple[str, Callable[[Path], tuple[float, list[str]]]], ...] = (
    ("README.md saved in place", in_place),
    ("README.md saved in place, once more", in_place),
    ("syncd/errors.py saved by rename", by_rename),
    ("a new directory shop/ with a directory and two files", new_directory),
    ("shop/ renamed to store/", moved_directory),
    ("LICENSE removed", removal),
    ("every .py and .rs file written anew, as git does (from its end)", burst),
)

if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        say("\ndemo: interrupted; nothing is left behind")
        sys.exit(130)
