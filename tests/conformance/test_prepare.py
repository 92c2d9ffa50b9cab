"""Prepare, in both bodies: a saving that changes nothing of what `place` comes to. The pure body prepares nothing."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable

import pytest

from syncd.kernel.contract import Prepared
from tests import trees
from tests.conformance.conftest import Make
from tests.conformance.scene import MIRROR, Scene
from tests.conftest import Mounts
from tests.trees import Dir, File, Link

BIG = b"b" * 200_000
START = {
    "grows": b"1", "shrinks": b"12345", "run": File(b"#!", 0o755), "same": b"same", "touched": b"touched",
    "d": {"big": BIG, "e": Dir({}), "l": Link("grows")},
}  # fmt: skip
CHANGED = {
    b"grows": b"longer",
    b"shrinks": b"1",
    b"run": b"#!/bin/sh",
    b"d/new": b"new",
    b"d/e/new": b"",
    b"d/big": BIG[1:],
}
OTHERS = [b"same", b"touched", b"missing", b"d", b"d/l", b"d/e", b"d/fifo", b"missing/below"]
SMALL = 5  # of the changed ones


@pytest.fixture
def made(scene: Make) -> Scene:
    """A mirrored tree, and then changes."""
    made = scene(START)
    made.cycle()
    assert made.quiet()
    for path, content in CHANGED.items():
        (made.source / os.fsdecode(path)).write_bytes(content)
    os.utime(made.source / "touched")
    os.mkfifo(made.source / "d" / "fifo")
    return made


def prepare(made: Scene, *paths: bytes, **options: object) -> Prepared:
    prepared = made.kernel.prepared()
    before = trees.read(made.target)
    given = made.options(prepared=prepared, **options)
    made.kernel.prepare((made.roots[0], made.roots[1]), made.base, paths or [*CHANGED, *OTHERS], given, made.control)
    assert trees.read(made.target) == before, "it is not its time"
    return prepared


def staged(made: Scene) -> list[str]:
    return [name for name in os.listdir(made.staging) if name.startswith("new-")]


def finish(made: Scene, prepared: Prepared, **options: object) -> None:
    """Place everything: both sides are equal then, and nothing is left of what was prepared."""
    os.unlink(made.source / "d" / "fifo")
    made.cycle(prepared=prepared, **options)
    prepared.clear(made.staging_fd)
    assert len(prepared) == 0
    assert made.same_content()
    made.tidy()


@pytest.mark.parametrize("write", ["auto", "replace", "inplace"])
def test_what_is_prepared_is_used(made: Scene, write: str) -> None:
    prepared = prepare(made, write=write)
    native = made.kernel.name == "native"
    assert len(prepared) == (SMALL if native else 0)
    in_place = {"auto": 1, "replace": 0, "inplace": 3}[write]
    inodes = {os.stat(made.staging / name).st_ino for name in staged(made)}
    assert len(inodes) == (SMALL - in_place if native else 0)
    finish(made, prepared, write=write)
    here = {os.stat(made.target / os.fsdecode(path)).st_ino for path in CHANGED}
    assert inodes <= here
    assert made.quiet()


def rewrite_source(made: Scene) -> None:
    for path, content in CHANGED.items():
        file = made.source / os.fsdecode(path)
        before = os.stat(file)
        with file.open("r+b") as opened:
            opened.write(content[::-1].replace(b"/", b"|"))
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def rewrite_staged(made: Scene) -> None:
    for name in staged(made):
        file = made.staging / name
        before = os.stat(file)
        file.write_bytes(b"x" * before.st_size)
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def remove_staged(made: Scene) -> None:
    for name in staged(made):
        os.unlink(made.staging / name)


def replace_source(made: Scene) -> None:
    for path in CHANGED:
        file = made.source / os.fsdecode(path)
        os.rename(file, file.with_name("old"))
        file.write_bytes(b"another")
        os.unlink(file.with_name("old"))


def remove_source(made: Scene) -> None:
    for path in CHANGED:
        os.unlink(made.source / os.fsdecode(path))


def make_links(made: Scene) -> None:
    remove_source(made)
    for path in CHANGED:
        os.symlink("/etc/passwd", made.source / os.fsdecode(path))


MEANWHILE = [rewrite_source, rewrite_staged, remove_staged, replace_source, remove_source, make_links]


@pytest.mark.parametrize("meanwhile", MEANWHILE)
def test_what_was_touched_since_is_not_used(made: Scene, meanwhile: Callable[[Scene], None]) -> None:
    prepared = prepare(made)
    meanwhile(made)
    finish(made, prepared)


def test_a_second_time_takes_the_place_of_the_first(made: Scene) -> None:
    prepared = prepare(made)
    count = len(staged(made))
    replace_source(made)
    given = made.options(prepared=prepared)
    made.kernel.prepare((made.roots[0], made.roots[1]), made.base, list(CHANGED), given, made.control)
    assert len(staged(made)) <= count + 2  # what now goes beside, too
    finish(made, prepared)


def test_a_file_that_is_being_written_is_passed_over(made: Scene) -> None:
    with (made.source / "shrinks").open("ab"):
        assert len(prepare(made, b"shrinks")) == 0
    assert staged(made) == []


def test_the_containers_edits_are_set_aside_as_ever(made: Scene) -> None:
    prepared = prepare(made)
    (made.target / "shrinks").write_bytes(b"theirs")
    (made.target / "grows").write_bytes(b"theirs, too")
    finish(made, prepared, verbs=MIRROR)
    assert {b"theirs", b"theirs, too"} <= set(made.kept())


def test_nothing_is_left_by_a_journal_that_cannot_be_written(made: Scene) -> None:
    prepared = prepare(made)
    before = trees.read(made.target)
    closed = os.open("/dev/null", os.O_RDONLY)
    try:
        with pytest.raises(OSError, match="descriptor"):
            made.place(made.look(), prepared=prepared, journal=closed)
    finally:
        os.close(closed)
    assert trees.read(made.target) == before
    assert staged(made) == []
    finish(made, prepared)


def test_clear_removes_what_was_staged(made: Scene) -> None:
    prepared = prepare(made)
    prepared.clear(made.staging_fd)
    assert (len(prepared), staged(made)) == (0, [])
    prepared.clear(made.staging_fd)
    finish(made, prepared)


def test_one_that_is_cancelled_ends(made: Scene) -> None:
    made.control.cancelled = True
    assert len(prepare(made)) == 0
    made.control.cancelled = False


def test_a_full_target_is_no_trouble_yet(made: Scene, mounts: Mounts) -> None:
    place = mounts.tmpfs("tiny", "16k")
    with contextlib.suppress(OSError):
        (place / "filler").write_bytes(b"f" * (1 << 20))
    fd = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
    try:
        prepared = made.kernel.prepared()
        given = made.options(prepared=prepared, staging=fd)
        made.kernel.prepare((made.roots[0], made.roots[1]), made.base, list(CHANGED), given, made.control)
        prepared.clear(fd)
        assert os.listdir(place) == ["filler"]
    finally:
        os.close(fd)
