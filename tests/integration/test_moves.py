"""A rename in the source becomes a rename in the target, where nothing is in doubt."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.compare import assert_equal
from tests.integration.conftest import Place
from tests.integration.watching import watching

pytestmark = pytest.mark.kernel


def fill(source: Path) -> None:
    (source / "lib" / "deep").mkdir(parents=True)
    for number in range(20):
        (source / "lib" / "deep" / f"f{number}").write_text(f"{number}")
    (source / "big").write_bytes(os.urandom(2 << 20))


def inodes(root: Path) -> set[int]:
    return {path.stat().st_ino for path in root.rglob("*") if path.is_file()}


def test_a_directory_and_a_large_file_keep_their_inodes(place: Place) -> None:
    source, target, home = place
    fill(source)
    with watching(source, target, home) as watch:
        before = inodes(target)
        os.rename(source / "lib", source / "renamed")
        os.rename(source / "big", source / "dir" / "big")
        assert watch.flush() == 0
        assert_equal(source, target)
        assert inodes(target) == before


def test_what_the_container_put_into_it_stays(place: Place) -> None:
    source, target, home = place
    fill(source)
    with watching(source, target, home) as watch:
        (target / "lib" / "deep" / "container").write_text("mine")
        os.rename(source / "lib", source / "renamed")
        assert watch.flush() == 0
        assert_equal(source, target, leave_out=[b"lib"])
        assert (target / "lib" / "deep" / "container").read_text() == "mine"
        assert [path.name for path in (target / "lib").rglob("*")] == ["deep", "container"]


def test_an_ignored_name_in_it_stays_where_it_was(place: Place) -> None:
    source, target, home = place
    fill(source)
    with watching(source, target, home, "--ignore", "*.log") as watch:
        (target / "lib" / "x.log").write_text("log")
        os.rename(source / "lib", source / "renamed")
        assert watch.flush() == 0
        assert (target / "lib" / "x.log").read_text() == "log"
        assert_equal(source, target, leave_out=[b"lib"])


def test_a_name_taken_by_the_container_is_not_overwritten(place: Place) -> None:
    source, target, home = place
    fill(source)
    with watching(source, target, home) as watch:
        (target / "renamed").mkdir()
        (target / "renamed" / "container").write_text("mine")
        os.rename(source / "lib", source / "renamed")
        assert watch.flush() == 0
        assert (target / "renamed" / "container").read_text() == "mine"
        assert_equal(source, target, leave_out=[b"renamed/container"])


def test_moved_edited_and_moved_again(place: Place) -> None:
    source, target, home = place
    fill(source)
    with watching(source, target, home) as watch:
        os.rename(source / "lib", source / "one")
        (source / "one" / "deep" / "f3").write_text("edited after the move")
        os.rename(source / "one", source / "two")
        (source / "two" / "new").write_text("new")
        os.rename(source / "big", source / "bigger")
        with (source / "bigger").open("ab") as file:
            file.write(b"more")
        assert watch.flush() == 0
        assert_equal(source, target)
        assert watch.stop() == 0
    with watching(source, target, home) as watch:
        assert watch.reports[0]["put"] == 0
