"""A container that writes between syncd's write and its look at the result: what it wrote is never lost."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.conftest import Place
from tests.integration.watching import SYNCD, environment, run
from tests.machine import eventually

pytestmark = pytest.mark.kernel

EDIT = b"the container's line\n"


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """A pair that was mirrored once."""
    source, target, home = tmp_path / "source", tmp_path / "target", tmp_path / "home"
    source.mkdir()
    (source / "file").write_bytes(b"old\n")
    (source / "large").write_bytes(b"old" * 100_000)
    assert run("sync", str(source), str(target), env=environment(home)).returncode == 0
    return Place(source, target, home)


def sync_with_an_edit(place: Place, step: str, find: Callable[[], Path], *, replace: bool = False) -> None:
    """One `sync` that is stopped at the n-th passage of a step, while the container changes the found file."""
    process = subprocess.Popen(
        [*SYNCD, "sync", str(place.source), str(place.target)],
        env=environment(place.home, SYNCD_CRASH_AT=f"{step}:stop"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        status = Path(f"/proc/{process.pid}/status")
        eventually(lambda: "State:\tT" in status.read_text(), f"it did not stop at {step}")
        path = find()
        if replace:
            path.write_bytes(EDIT.ljust(path.stat().st_size, b"."))
        else:
            with path.open("ab") as file:
                file.write(EDIT)
        os.kill(process.pid, signal.SIGCONT)
        process.wait(60)
    finally:
        process.kill()
        process.wait()


def everything(place: Place) -> bytes:
    """All that stands in the target and in what was set aside."""
    kept = (place.home / "state").rglob("conflicts/**/*")
    return b"".join(path.read_bytes() for path in (*place.target.rglob("*"), *kept) if path.is_file())


@pytest.mark.parametrize("replace", [False, True], ids=["append", "same size"])
@pytest.mark.parametrize(
    ("step", "name", "new"),
    [
        ("publish-inplace", "file", b"new and longer\n"),
        ("publish-renamed", "large", b"new" * 120_000),
        ("publish-renamed", "made", b"made\n" * 50),
    ],
)
def test_the_edit_outlives_the_next_change(place: Place, step: str, name: str, new: bytes, replace: bool) -> None:
    (place.source / name).write_bytes(new)
    sync_with_an_edit(place, f"{step}:1", lambda: place.target / name, replace=replace)
    assert EDIT in everything(place)
    (place.source / name).write_bytes(b"the next change " + new)
    done = run("sync", str(place.source), str(place.target), env=environment(place.home))
    assert EDIT in everything(place), done.stderr


@pytest.mark.parametrize("count", [1, 150])
def test_the_edit_of_a_file_that_is_just_replaced_is_kept(place: Place, count: int) -> None:
    """It has two names at that moment."""
    names = [f"f{number:03}" for number in range(count)]
    for text in ("the first version\n", "2\n"):
        for name in names:
            (place.source / name).write_text(text)
        if text != "2\n":
            assert run("sync", str(place.source), str(place.target), env=environment(place.home)).returncode == 0

    def linked() -> Path:
        return next(path for path in place.target.iterdir() if path.stat().st_nlink == 2)

    sync_with_an_edit(place, f"publish-linked:{(count + 1) // 2}", linked)
    assert EDIT in everything(place)
    done = run("sync", str(place.source), str(place.target), env=environment(place.home))
    assert EDIT in everything(place), done.stderr
    assert all((place.target / name).read_text() == "2\n" for name in names)
    staging = (place.home / "state").rglob("staging/*")
    assert [path.name for path in staging] == ["conflicts"]


def test_in_a_first_copy(tmp_path: Path) -> None:
    place = Place(tmp_path / "source", tmp_path / "target", tmp_path / "home")
    place.source.mkdir()
    (place.source / "file").write_bytes(b"first\n")
    sync_with_an_edit(place, "publish-renamed:1", lambda: place.target / "file")
    (place.source / "file").write_bytes(b"second, and longer\n")
    done = run("sync", str(place.source), str(place.target), env=environment(place.home))
    assert EDIT in everything(place), done.stderr
