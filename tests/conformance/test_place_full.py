"""Place, in both bodies: a full or read-only target, staging on another mount, a journal that fails."""

from __future__ import annotations

import errno
import os
import resource
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from syncd.kernel.contract import Side, Status
from syncd.model.change import Line
from tests import trees
from tests.conformance.conftest import Make
from tests.conformance.scene import KEEP, ends
from tests.trees import F1, F2, F3, Link, build

LARGE = bytes(range(256)) * 1200  # two find room in a small mount


@pytest.fixture
def small(mounts: Any) -> Path:
    """A mount of 1 MiB."""
    mount: Path = mounts.tmpfs("small", "1m")
    return mount


def fill(mount: Path, leave: int = 0) -> Path:
    """Fill a filesystem but for some bytes."""
    filler = mount / "filler"
    with open(filler, "wb", buffering=0) as file:
        try:
            while file.write(bytes(4096)):
                pass
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
        file.truncate(max(os.fstat(file.fileno()).st_size - leave, 0))
    return filler


# --- no room ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [b"x" * 100_000, LARGE], ids=["in memory", "in staging"])
def test_a_full_target_stops_the_slice(scene: Make, small: Path, data: bytes) -> None:
    made = scene({"a": F1, "b": F1}, other_mount=small)
    made.cycle()
    build(made.source, {"a": data, "new": data})
    filler = fill(small)
    before = trees.read(made.target)
    diff = made.look()
    outcomes = made.place(diff)
    assert outcomes.stopped == errno.ENOSPC
    assert (outcomes.next, outcomes.counts()) == (0, {})
    assert trees.read(made.target) == before
    made.tidy()
    filler.unlink()
    outcomes = made.place(diff)
    assert (outcomes.stopped, outcomes.puts) == (0, 2)
    assert made.same_content()
    assert made.quiet()


def test_removals_are_done_first_of_all_and_make_room(scene: Make, small: Path) -> None:
    made = scene({"old": LARGE, "kept": F1}, other_mount=small)
    made.cycle()
    (made.source / "old").unlink()
    build(made.source, {"new": LARGE})
    fill(small, leave=8192)
    diff = made.look()
    outcomes = made.place(diff)
    assert outcomes.stopped == errno.ENOSPC
    assert ends(outcomes) == {b"old": Status.DONE}
    assert outcomes.removed == 1
    assert trees.read(made.target) == {b"kept": F1}
    assert [path for path, _ in made.base.rows()] == [b"kept"]
    actions = diff.actions(KEEP)
    again = made.kernel.place(
        *made.roots, made.rules, made.base, actions, outcomes.next, len(actions), made.options(), made.control
    )
    made.base = made.kernel.patch(made.base, again)
    assert again.stopped == 0
    assert made.same_content()
    assert made.quiet()


def test_what_was_done_before_the_room_ended_is_told(scene: Make, small: Path) -> None:
    made = scene({f"f{number}": b"x" * 100_000 for number in range(20)}, other_mount=small)
    diff = made.look()
    outcomes = made.place(diff)
    assert outcomes.stopped == errno.ENOSPC
    assert outcomes.puts == len(trees.read(made.target)) == outcomes.next
    assert set(trees.read(made.target)) == {path for path, _ in made.base.rows()}
    assert set(outcomes.counts()) == ({Status.DONE} if outcomes.puts else set())
    made.tidy()


@pytest.mark.parametrize("new", [b"y" * 100_000, Link("y" * 3000)], ids=["file", "link"])
def test_a_conflict_without_room_is_untouched(scene: Make, small: Path, new: Any) -> None:
    made = scene({"p": F1}, other_mount=small)
    made.cycle()
    (made.source / "p").unlink()
    build(made.source, {"p": new})
    (made.target / "p").write_bytes(F2)
    fill(small)
    outcomes = made.cycle()
    if outcomes.stopped:  # a link may find room in an inode
        assert outcomes.stopped == errno.ENOSPC
        assert trees.read(made.target) == {b"p": F2}
        assert outcomes.aside == []
        assert made.kept() == []


def test_growth_in_place_never_tears(scene: Make, small: Path) -> None:
    made = scene({"f": b"old"}, other_mount=small)
    made.cycle()
    (made.source / "f").write_bytes(b"n" * 120_000)
    fill(small)
    for write in ("auto", "inplace"):
        outcomes = made.cycle(write=write)
        assert outcomes.stopped == errno.ENOSPC
        assert (made.target / "f").read_bytes() == b"old"
    (small / "filler").unlink()
    made.cycle()
    assert made.same_content()


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("write", ["auto", "inplace", "replace"])
def test_a_file_too_large_for_the_target_fails_alone(scene: Make, write: str) -> None:
    made = scene({"f": F1, "g": F1})
    made.cycle()
    build(made.source, {"f": b"n" * 100_000, "g": F2})
    with largest_file(65536):
        outcomes = made.cycle(write=write)
    assert ends(outcomes) == {b"f": Status.FAILED, b"g": Status.DONE}
    ((path, number, op, side),) = outcomes.troubles
    assert (path, number, side) == (b"f", errno.EFBIG, Side.TARGET)
    if op != "torn":  # it was reserved in vain, written short, and could not be finished beside
        assert (made.target / "f").read_bytes() == F1
    assert (made.target / "g").read_bytes() == F2
    made.tidy()
    made.cycle(write=write)
    assert made.same_content()


# --- read-only ----------------------------------------------------------------------------------------


def test_a_read_only_target_is_untouched(scene: Make, mounts: Any, small: Path) -> None:
    made = scene({"f": F1, "gone": F1, "d": {}}, other_mount=small)
    made.cycle()
    (made.source / "gone").unlink()
    build(made.source, {"f": F2, "new": F3, "big": LARGE, "newd": {}})
    os.utime(made.source / "d", ns=(1, 1))
    before = trees.read(made.target)
    mounts.read_only(small)
    diff = made.look()
    outcomes = made.place(diff)
    assert outcomes.stopped == errno.EROFS
    assert (outcomes.next, outcomes.puts, outcomes.removed) == (0, 0, 0)
    assert trees.read(made.target) == before
    assert made.base.get(b"gone") is not None


# --- staging on another mount -------------------------------------------------------------------------


def test_a_mount_in_the_target_is_written_under_temporary_names_of_its_own(scene: Make, mounts: Any) -> None:
    inner = mounts.tmpfs("inner")
    made = scene({"m": {"f": F1, "big": LARGE[:200_000], "l": Link("x"), "d": {"e": F1}}}, {"m": {}})
    mounts.bind(inner, made.target / "m")
    outcomes = made.cycle()
    assert set(outcomes.counts()) == {Status.DONE, Status.SAME}
    assert made.same_content()
    assert made.quiet()
    build(made.source, {"m": {"f": F2, "big": F3}})
    (made.source / "m/l").unlink()
    (made.source / "m/l").symlink_to("y")
    shutil.rmtree(made.source / "m/d")
    outcomes = made.cycle(write="replace")
    assert made.same_content()
    assert made.quiet()
    assert set(trees.read(inner)) == {b"f", b"big", b"l"}


def test_what_cannot_be_set_aside_is_untouched(scene: Make, mounts: Any) -> None:
    inner = mounts.tmpfs("inner")
    made = scene({"m": {"f": F1}, "g": F1}, {"m": {}})
    mounts.bind(inner, made.target / "m")
    made.cycle()
    (made.source / "m/f").write_bytes(F2)
    (made.source / "g").write_bytes(F2)
    (made.target / "m/f").write_bytes(b"the container's")
    outcomes = made.cycle()
    assert ends(outcomes) == {b"m/f": Status.FAILED, b"g": Status.DONE}
    assert trees.read(made.target)[b"m"] == {b"f": b"the container's"}


# --- the journal --------------------------------------------------------------------------------------


def test_a_journal_that_cannot_be_written_leaves_the_target_untouched(scene: Make, small: Path) -> None:
    made = scene({"f": F1, "gone": F1, "touched": F1})
    made.cycle()
    build(made.source, {"f": F2, "new": F3, "big": LARGE})
    (made.source / "gone").unlink()
    os.utime(made.source / "touched", ns=(1, 1))
    before = trees.read(made.target)
    diff = made.look(exact=True)
    journal = os.open(small / "journal", os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
    fill(small)
    try:
        with pytest.raises(OSError, match=r"No space|written") as caught:
            made.place(diff, journal=journal)
        assert caught.value.errno == errno.ENOSPC
        assert os.fstat(journal).st_size == 0
    finally:
        os.close(journal)
    assert trees.read(made.target) == before
    assert (made.target / "touched").stat().st_mtime_ns != 1
    made.tidy()
    made.place(diff)
    assert made.same_content()
    assert made.quiet()


def test_a_read_only_journal_leaves_the_target_untouched(scene: Make) -> None:
    made = scene({"f": F1})
    journal = os.open(made.journal_path, os.O_RDONLY)
    try:
        with pytest.raises(OSError, match="descriptor"):
            made.cycle(journal=journal)
    finally:
        os.close(journal)
    assert trees.read(made.target) == {}
    made.tidy()


def test_a_journal_cut_short_is_as_before(scene: Make) -> None:
    made = scene({"a": F1})
    made.cycle()
    before = made.journal_path.read_bytes()
    build(made.source, {f"file with a long name {number}": F1 for number in range(50)})
    diff = made.look()
    with largest_file(len(before) + 100), pytest.raises(OSError, match=r"large|written"):
        made.place(diff)
    assert made.journal_path.read_bytes() == before
    assert trees.read(made.target) == {b"a": F1}
    made.place(diff)
    assert made.same_content()


def test_outcomes_that_cannot_be_written_stop_the_slice_and_are_true(scene: Make) -> None:
    made = scene({"a": F1})
    made.cycle()
    build(made.source, {"a": b"second"})
    size = made.journal_path.stat().st_size
    diff = made.look()
    row = 4 + 1 + 12 + 8 + 16 + 2 * 36 + 4
    with largest_file(size + 13 + row + 20):  # the intents, and not even half of the outcomes
        outcomes = made.place(diff)
    assert outcomes.stopped
    assert ends(outcomes) == {b"a": Status.DONE}
    assert made.same_content()
    assert made.quiet()


def test_lines_of_a_diff_outlive_a_stop(scene: Make, small: Path) -> None:
    made = scene({"a": LARGE, "b": LARGE, "c": F1}, other_mount=small)
    diff = made.look()
    fill(small, leave=len(LARGE) + 65536)
    outcomes = made.place(diff)
    assert outcomes.stopped == errno.ENOSPC
    assert diff.count(Line.CHANGED) == 3
    made.tidy()
