"""Where unfinished and set-aside files live: the first place that a trial rename proves."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from syncd.engine.staging import Staging, kept, open_staging, places, sweep
from syncd.errors import SyncdError


@pytest.fixture
def pair(tmp_path):
    """(state directory, target)."""
    state, target = tmp_path / "state", tmp_path / "mirrors" / "shop"
    state.mkdir(mode=0o700)
    target.mkdir(parents=True)
    return state, target


@contextmanager
def opened(state: Path, target: Path) -> Iterator[Staging]:
    fd = os.open(target, os.O_RDONLY | os.O_DIRECTORY)
    try:
        staging = open_staging(state, target, fd)
    finally:
        os.close(fd)
    try:
        yield staging
    finally:
        staging.close()


def everything(*roots: Path) -> list[str]:
    return sorted(str(path) for root in roots for path in root.rglob("*"))


@pytest.fixture
def other_mounts(pair, monkeypatch):
    """Places that are made to lie on another mount than the target: renames from them are refused."""
    refused: set[Path] = set()
    real = os.rename

    def rename(old, new, *, src_dir_fd=None, dst_dir_fd=None):
        if src_dir_fd is not None and Path(os.readlink(f"/proc/self/fd/{src_dir_fd}")) in refused:
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        real(old, new, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)

    monkeypatch.setattr(os, "rename", rename)
    return refused


@pytest.mark.parametrize("chosen", [0, 1, 2])
def test_the_first_place_that_a_rename_proves(pair, other_mounts, chosen):
    state, target = pair
    candidates = places(state, target)
    assert candidates == (state / "staging", target.parent / ".shop.syncd", target / ".syncd")
    other_mounts.update(candidates[:chosen])
    with opened(*pair) as staging:
        assert staging.where == candidates[chosen]
        assert os.path.samestat(os.fstat(staging.fd), os.stat(candidates[chosen]))
        assert staging.where.stat().st_mode & 0o7777 == 0o700
        assert everything(state, target.parent) == sorted({str(target), str(candidates[chosen])})


def test_no_place_at_all_is_an_error_that_names_the_three(pair, other_mounts):
    state, target = pair
    other_mounts.update(places(state, target))
    with pytest.raises(SyncdError) as caught, opened(*pair):
        pass
    assert all(f"{place} (EXDEV)" in str(caught.value) for place in places(state, target))
    assert everything(state, target.parent) == [str(target)]


def test_no_descriptor_is_left(pair, other_mounts):
    before = os.listdir("/proc/self/fd")
    other_mounts.update(places(*pair)[:2])
    with opened(*pair):
        pass
    other_mounts.update(places(*pair))
    with pytest.raises(SyncdError), opened(*pair):
        pass
    assert os.listdir("/proc/self/fd") == before


TRAPS = ["group", "others", "link", "file", "theirs" if os.geteuid() == 0 else "read-only"]


@pytest.mark.parametrize("trap", TRAPS)
def test_a_place_that_somebody_else_can_write_is_passed_over(pair, trap, tmp_path):
    state, target = pair
    place = state / "staging"
    if trap == "link":
        (tmp_path / "elsewhere").mkdir()
        place.symlink_to(tmp_path / "elsewhere")
    elif trap == "file":
        place.touch()
    else:
        place.mkdir()
        place.chmod({"group": 0o770, "others": 0o702, "read-only": 0o500}.get(trap, 0o700))
        if trap == "theirs":
            os.chown(place, 12345, 12345)
    with opened(*pair) as staging:
        assert staging.where == target.parent / ".shop.syncd"
    assert os.path.lexists(place)
    assert everything(tmp_path / "elsewhere") == []


def test_what_the_target_holds_is_never_renamed_over(pair):
    """Also a name that looks like a trial's."""
    _, target = pair
    names = [f".syncd-{os.getpid()}", ".syncd-1"]
    for name in names:
        (target / name).write_text("mine")
    with opened(*pair):
        pass
    assert [(target / name).read_text() for name in names] == ["mine", "mine"]


def test_a_place_is_used_again_with_what_it_holds(pair):
    with opened(*pair) as staging:
        (staging.where / "conflicts").mkdir()
    with opened(*pair) as staging:
        assert everything(staging.where) == [str(staging.where / "conflicts")]


@pytest.mark.parametrize("place", [1, 2])
def test_an_empty_place_beside_or_inside_the_target_goes_at_the_end(pair, other_mounts, place):
    other_mounts.update(places(*pair)[:place])
    with opened(*pair) as staging:
        pass
    assert not staging.where.exists()
    with opened(*pair) as staging:
        (staging.where / "conflicts").mkdir()
    staging.close()
    assert staging.where.exists()


def test_the_name_under_which_a_cycle_sets_aside(pair):
    with opened(*pair) as staging:
        assert staging.aside(7, 0.0) == b"conflicts/19700101T000000Z-7"


# What an interrupted run left ------------------------------------------------------------------------

ASIDE = b"conflicts/20260101T000000Z-0-unfinished"


def test_leftovers_are_judged(pair):
    with opened(*pair) as staging:
        for name in ("new-0", "old-0", "old-1", "other"):
            (staging.where / name).write_text(name)
        (staging.where / "old-2").symlink_to("anywhere")
        (staging.where / "new-1").symlink_to("anywhere")
        asked = []

        def is_own(fd, name):
            assert fd == staging.fd
            asked.append(name)
            return name == "old-0"

        assert sweep(staging, is_own, ASIDE) == [ASIDE + b"/old-1", ASIDE + b"/old-2"]
        assert asked == ["old-0", "old-1", "old-2"]
        assert sorted(os.listdir(staging.where)) == ["conflicts", "other"]
        assert (staging.where / os.fsdecode(ASIDE) / "old-1").read_text() == "old-1"
        assert sweep(staging, is_own, ASIDE) == []


def test_a_leftover_is_never_moved_over_another_one(pair):
    with opened(*pair) as staging:
        for number in range(3):
            (staging.where / "old-0").write_text(f"text {number}")
            sweep(staging, lambda *_: False, ASIDE)
        there = staging.where / os.fsdecode(ASIDE)
        assert {path.name: path.read_text() for path in there.iterdir()} == {
            "old-0": "text 0",
            "old-0.1": "text 1",
            "old-0.2": "text 2",
        }


def test_directories_of_such_a_name_are_kept(pair):
    with opened(*pair) as staging:
        for name in ("new-0", "old-0"):
            (staging.where / name).mkdir()
            (staging.where / name / "x").write_text("mine")
        assert sweep(staging, lambda *_: True, ASIDE) == [ASIDE + b"/new-0", ASIDE + b"/old-0"]
        assert kept(staging.where) == [(os.fsdecode(ASIDE[10:]), b"new-0/x"), (os.fsdecode(ASIDE[10:]), b"old-0/x")]


def test_leftovers_of_a_large_slice_are_judged_too(pair, tmp_path):
    (tmp_path / "host").mkdir()
    (tmp_path / "host" / "old-0").write_text("mine")
    with opened(*pair) as staging:
        for place, name in (("olds-3", "old-0"), ("olds-3", "old-1"), ("olds-4", "old-1"), ("olds-4", "foreign")):
            (staging.where / place).mkdir(exist_ok=True)
            (staging.where / place / name).write_text(f"{place}/{name}")
        (staging.where / "olds-5").symlink_to(tmp_path / "host")
        (staging.where / "olds-6").mkdir()
        (staging.where / "olds-7").write_text("a file")
        saved = sweep(staging, lambda fd, name: name == "old-0", ASIDE)
        assert saved == [ASIDE + b"/old-1", ASIDE + b"/old-1.1"]
        there = staging.where / os.fsdecode(ASIDE)
        assert {path.name: path.read_text() for path in there.iterdir()} == {
            "old-1": "olds-3/old-1",
            "old-1.1": "olds-4/old-1",
        }
        assert sorted(os.listdir(staging.where)) == ["conflicts", "olds-4", "olds-5", "olds-7"]
        assert os.listdir(staging.where / "olds-4") == ["foreign"]
    assert (tmp_path / "host" / "old-0").read_text() == "mine"


def test_nothing_is_moved_through_a_link(pair, tmp_path):
    """A container may have planted it, where staging is inside the target."""
    (tmp_path / "host").mkdir()
    with opened(*pair) as staging:
        (staging.where / "old-0").write_text("x")
        (staging.where / "conflicts").symlink_to(tmp_path / "host")
        with pytest.raises(OSError, match=r"Not a directory|Too many"):
            sweep(staging, lambda *_: False, ASIDE)
        assert everything(tmp_path / "host") == []
        assert (staging.where / "old-0").read_text() == "x"


def test_what_is_kept_is_listed_oldest_first(pair):
    with opened(*pair) as staging:
        assert kept(staging.where) == []
        for batch in ("20260102T000000Z-1", "20260101T000000Z-9"):
            below = staging.where / "conflicts" / batch / "d"
            below.mkdir(parents=True)
            (below / "file").touch()
            (below / "link").symlink_to("/nowhere")
            (below / "to-a-directory").symlink_to("..")
            (below / "empty").mkdir()
        names = [b"d/file", b"d/link", b"d/to-a-directory"]
        assert kept(staging.where) == [
            (batch, name) for batch in ("20260101T000000Z-9", "20260102T000000Z-1") for name in names
        ]
