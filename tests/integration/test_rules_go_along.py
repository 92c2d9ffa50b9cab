"""Rules of a directory go where it goes: its old name has none, whoever has that name by now."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.compare import assert_equal
from tests.integration.test_saves import exchange
from tests.integration.watching import run, watching
from tests.machine import eventually

pytestmark = pytest.mark.kernel


def moved(source: Path, _outside: Path) -> None:
    (source / "d").rename(source / "e")
    (source / "d").mkdir()


def moved_out(source: Path, outside: Path) -> None:
    (source / "d").rename(outside / "d")
    (source / "d").mkdir()


def moved_above(source: Path, outside: Path) -> None:
    (source / "d/deep").rename(outside / "deep")
    (source / "d/deep").mkdir()


def exchanged(source: Path, _outside: Path) -> None:
    exchange(source / "d", source / "other")


def removed(source: Path, _outside: Path) -> None:
    shutil.rmtree(source / "d")
    (source / "d").mkdir()


DEEDS = [moved, moved_out, moved_above, exchanged, removed]


@pytest.mark.parametrize("deed", DEEDS, ids=lambda deed: deed.__name__)
def test_rules_go_along(tmp_path: Path, deed: Callable[[Path, Path], None]) -> None:
    source, target, outside = (tmp_path / name for name in ("source", "target", "outside"))
    for directory in (source / "d/deep", source / "other/deep", outside):
        directory.mkdir(parents=True)
    for place in ("d", "d/deep"):
        (source / place / ".syncdignore").write_text("x\n")
    with watching(source, target, tmp_path / "home") as watch:
        (source / "d/deep/x").write_text("ignored")
        assert watch.flush() == 0
        assert not (target / "d/deep/x").exists()
        deed(source, outside)
        (source / "d/deep").mkdir(exist_ok=True)
        if deed is moved_above:
            (source / "d/.syncdignore").unlink()
        (source / "d/deep/x").write_text("no longer")
        assert watch.flush() == 0
        assert (target / "d/deep/x").read_text() == "no longer"
        if deed in (moved, exchanged):
            where = "e" if deed is moved else "other"
            assert not (target / where / "deep/x").exists()
            assert (source / where / "deep/x").exists()
            (source / where / "deep/x").unlink()
        assert watch.flush() == 0
        assert_equal(source, target)
        assert run("verify", str(source), str(target), env=watch.env).returncode == 0


@pytest.mark.parametrize("watcher", ["auto", "watchdog"])
def test_a_rule_file_that_is_ignored_itself_still_rules(tmp_path: Path, watcher: str) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    (source / "d").mkdir(parents=True)
    (source / "d/.syncdignore").write_text("x\n")
    (source / "d/x").write_text("ignored")
    with watching(source, target, tmp_path / "home", "--ignore", ".*", "--watcher", watcher) as watch:
        assert watch.flush() == 0
        assert not (target / "d/x").exists()
        (source / "d/.syncdignore").write_text("y\n")
        eventually((target / "d/x").exists, "nobody read the rules anew")
        (source / "d/y").write_text("ignored now")
        assert watch.flush() == 0
        assert sorted(path.name for path in (target / "d").iterdir()) == ["x"]


def test_the_state_tells_of_what_waits_and_of_what_passed(tmp_path: Path) -> None:
    """What a lock keeps back is not in sync; a temporary name that came and went leaves no state behind."""
    source, target = tmp_path / "source", tmp_path / "target"
    (source / ".git").mkdir(parents=True)
    (source / "gone").write_text("soon")
    with watching(source, target, tmp_path / "home") as watch:
        lock = source / ".git/index.lock"
        lock.touch()
        eventually(lambda: watch.status()["held_by"], "the lock is not seen")
        (source / "gone").unlink()
        eventually(lambda: watch.status()["state"] == "settling", "nobody says that something waits")
        assert watch.status()["in_sync"] is False
        lock.unlink()
        eventually(lambda: watch.status()["in_sync"], "the lock went")
        assert not (target / "gone").exists()
        for number in range(20):
            with (source / "passing").open("w"):  # still open, so it waits
                (source / "saved").write_text(str(number))
                eventually(lambda number=number: (target / "saved").exists() and (target / "saved").read_text() == str(number), "not mirrored")  # type: ignore[misc]  # fmt: skip
                (source / "passing").unlink()
            eventually(lambda: watch.status()["in_sync"], f"it stays {watch.status()['state']}")
