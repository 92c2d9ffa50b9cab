"""Digest, in both bodies: what is read, and that it is the right number."""

from __future__ import annotations

import errno
import os
import random
from pathlib import Path
from typing import Any

import pytest
import xxhash

from syncd.kernel.contract import Look, Status
from syncd.model.change import Line
from tests import trees
from tests.conformance.conftest import Make
from tests.conformance.scene import ends
from tests.trees import F1, F2, Fifo, File, Link, build

SIZES = [0, 1, 3, 16, 17, 128, 129, 240, 241, 1024, 4096, 131071, 131072, 131073, (1 << 20) + 1]


@pytest.mark.parametrize("size", SIZES)
def test_digests_are_xxh3_128(scene: Make, size: int) -> None:
    data = random.Random(size).randbytes(size)
    made = scene({"f": data})
    assert made.kernel.hash_many(made.roots[0], [b"f"], made.control) == [xxhash.xxh3_128(data).digest()]


def test_hash_many_has_an_errno_where_no_file_is(scene: Make) -> None:
    made = scene({"f": F1, "d": {}, "l": Link("f"), "p": Fifo()})
    found = made.kernel.hash_many(made.roots[0], [b"f", b"d", b"l", b"p", b"nowhere", b"f/x"], made.control)
    assert found == [xxhash.xxh3_128(F1).digest(), *[errno.ENOENT] * 5]


def test_hash_many_has_eagain_while_somebody_writes(scene: Make) -> None:
    made = scene({"f": F1})
    with open(made.source / "f", "r+b"):
        assert made.kernel.hash_many(made.roots[0], [b"f"], made.control) == [errno.EAGAIN]
    assert made.kernel.hash_many(made.roots[0], [b"f"], made.control) == [xxhash.xxh3_128(F1).digest()]


def test_hash_many_ends_when_cancelled(scene: Make) -> None:
    made = scene({"f": F1})
    made.control.cancelled = True
    assert made.kernel.hash_many(made.roots[0], [b"f"] * 3, made.control) == [errno.ECANCELED] * 3


# --- which files are read: (what to do after a cycle) → (source has a digest, target has one) ----------


def digests(made: Any, exact: bool = False) -> tuple[bool, bool]:
    trees = made.kernel.digest(made.base, *made.scan(), tuple(made.roots), made.control, exact)
    found = [tree.get(b"f") for tree in trees]
    return tuple(entry is not None and entry.digest is not None for entry in found)


def write(side: str, data: bytes) -> Any:
    return lambda made: (getattr(made, side) / "f").write_bytes(data)


def touch(side: str) -> Any:
    return lambda made: os.utime(getattr(made, side) / "f", ns=(5, 5))


def both(*steps: Any) -> Any:
    return lambda made: [step(made) for step in steps]


@pytest.mark.parametrize(
    ("do", "exact", "read"),
    [
        (both(), False, (True, True)),  # known
        (touch("source"), False, (False, True)),  # `place` finds out
        (touch("source"), True, (True, True)),
        (write("source", b"0n3"), True, (True, True)),
        (write("source", b"longer"), True, (False, True)),  # its size tells
        (touch("target"), False, (True, True)),
        (write("target", b"longer"), False, (True, False)),  # its size tells it from both
        (both(touch("source"), touch("target")), False, (True, True)),
        (both(touch("source"), write("target", b"longer")), False, (True, False)),  # edited, or a conflict?
        (both(write("source", b"longer"), touch("target")), False, (False, True)),
        (both(write("source", b"longer"), write("target", b"l0nger")), False, (True, True)),
        (both(write("source", b"longer"), write("target", b"unlike all")), False, (False, False)),
    ],
)
def test_only_doubt_that_matters_is_read(scene: Make, do: Any, exact: bool, read: tuple[bool, bool]) -> None:
    made = scene({"f": F1})
    made.cycle()
    do(made)
    assert digests(made, exact) == read


@pytest.mark.parametrize(
    ("do", "line"),
    [
        (lambda path: path.write_bytes(b"longer"), Line.EDITED),
        (lambda path: path.write_bytes(b""), Line.EDITED),
        (lambda path: path.unlink(), Line.LOST),
        (lambda path: (path.unlink(), path.mkdir()), Line.EDITED),
    ],
)
def test_a_touched_source_is_no_conflict(scene: Make, do: Any, line: Line) -> None:
    made = scene({"f": F1})
    made.cycle()
    touch("source")(made)
    do(made.target / "f")
    assert made.lines(made.look()) == {line: [b"f"]}
    before = trees.read(made.target)
    made.cycle()
    assert trees.read(made.target) == before


def test_a_first_meeting_reads_files_of_equal_size_only(scene: Make) -> None:
    made = scene({"f": F1}, {"f": F2})
    assert len(F1) == len(F2)
    assert digests(made) == (True, True)
    other = scene({"f": F1}, {"f": b"four"})
    assert digests(other) == (False, False)
    assert digests(scene({"f": F1})) == (False, False)


def test_what_lies_below_the_unknown_is_not_read(scene: Make, as_user: Any) -> None:
    made = scene({"d": {"f": F1}}, {"d": {"f": F1}})
    (made.target / "d").chmod(0o000)
    with as_user(made):
        source, _ = made.kernel.digest(made.base, *made.scan(), tuple(made.roots), made.control)
    assert source.get(b"d/f").digest is None


@pytest.mark.parametrize("side", ["source", "target"])
def test_a_file_somebody_writes_keeps_no_digest(scene: Make, side: str) -> None:
    made = scene({"f": F1}, {"f": F1})
    with open(getattr(made, side) / "f", "r+b"):
        source, target = digests(made)
    assert (source, target) == (side != "source", side != "target")


@pytest.mark.parametrize("side", ["source", "target"])
def test_a_file_changed_since_the_scan_keeps_no_digest(scene: Make, side: str) -> None:
    made = scene({"f": F1}, {"f": F1})
    scanned = made.scan()
    write(side, F2)(made)
    trees = made.kernel.digest(made.base, *scanned, tuple(made.roots), made.control)
    assert [tree.get(b"f").digest is None for tree in trees] == [side == "source", side == "target"]
    assert not trees[0].troubles
    assert not trees[1].troubles


def test_a_vanished_file_is_no_trouble(scene: Make) -> None:
    made = scene({"f": F1}, {"f": F1})
    scanned = made.scan()
    (made.source / "f").unlink()
    build(made.source, {"f": Link("/etc/passwd")})
    trees = made.kernel.digest(made.base, *scanned, tuple(made.roots), made.control)
    assert trees[0].get(b"f").digest is None
    assert not trees[0].troubles


def test_an_unreadable_file_is_trouble(scene: Make, as_user: Any) -> None:
    made = scene({"f": F1}, {"f": F1})
    (made.target / "f").chmod(0o000)
    with as_user(made):
        _, target = made.kernel.digest(made.base, *made.scan(), tuple(made.roots), made.control)
    assert [(t.path, t.errno, t.op) for t in target.troubles] == [(b"f", errno.EACCES, "read")]


def test_bytes_are_counted(scene: Make) -> None:
    made = scene({"f": b"x" * 5000})
    made.kernel.hash_many(made.roots[0], [b"f"], made.control)
    assert made.control.bytes == 5000


def test_a_named_file_that_changed_just_now_is_read_though_its_times_did_not_change(scene: Make) -> None:
    """As two writes within one tick of a coarse clock leave it, the first of which was mirrored."""
    made = scene({"d": {"f": File(b"first"), "g": File(b"other")}})
    made.cycle()
    (made.source / "d" / "f").write_bytes(b"later")
    seen = made.scan()[0].get(b"d/f").seen
    row = made.base.get(b"d/f")._replace(source=seen, mtime_ns=seen.mtime_ns)
    made.base = made.kernel.settle(made.base, [(b"d/f", row)], made.journal)
    scope = [Look(b"d/f", False), Look(b"d/g", False)]
    outcomes = made.cycle(scope)
    assert (made.target / "d" / "f").read_bytes() == b"later"
    assert ends(outcomes) == {b"d/f": Status.DONE, b"d/g": Status.SAME}
    assert made.quiet()


def test_reading_is_not_seen_in_the_access_time(scene: Make) -> None:
    """It is the user's; and noting it would cost the filesystem a write for each file."""
    made = scene({"small": F1, "d": {"large": b"l" * 300_000}})
    files = [top / name for top in (made.source, made.target) for name in ("small", "d/large")]

    def age(paths: list[Path]) -> None:
        for path in paths:  # older than the modification: also a filesystem that notes few accesses would note this one
            os.utime(path, ns=(10**18, path.stat().st_mtime_ns))

    age(files[:2])
    made.cycle()
    assert [path.stat().st_atime_ns for path in files[:2]] == [10**18] * 2
    os.utime(made.source / "small")  # in doubt, so that both sides are read
    age(files)
    made.cycle()
    made.look(exact=True)
    assert [path.stat().st_atime_ns for path in files] == [10**18] * 4


def test_a_file_of_somebody_else_is_read(scene: Make, as_user: Any) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can make files of others")
    made = scene({"f": F1, "large": b"l" * 300_000})
    with as_user(made):
        for name in ("f", "large"):
            os.seteuid(0)
            os.chown(made.source / name, 12345, 12345)
            os.seteuid(65534)
        made.cycle()
    assert made.same_content()
