"""Place, in both bodies: how files, links and directories come into the target."""

from __future__ import annotations

import os
import random
import shutil
import stat
from pathlib import Path
from typing import Any

import pytest
import xxhash

from syncd.kernel.contract import Side, Status
from syncd.model.change import Line
from syncd.model.entry import Fingerprint, Kind
from syncd.model.plan import Verb
from tests import trees
from tests.conformance.conftest import NOBODY, Make
from tests.conformance.scene import KEEP, MIRROR, ends, kept_path
from tests.trees import F1, F2, F3, Dir, Fifo, File, Link, build

BIG = random.Random(0).randbytes(128 * 1024 + 1)
ODD = [b"n" * 255, b"\xff\xfe", b"new\nline", b" ", b"-rf", b"\\", "größe ✓".encode(), b".syncd-0", b"new-0", b"old-0"]


def seen(path: Path) -> Fingerprint:
    state = os.lstat(path)
    return Fingerprint(state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino, state.st_mode)


# --- what is kept -------------------------------------------------------------------------------------


def test_everything_arrives(scene: Make) -> None:
    literal = {
        "empty": b"", "small": b"text", "limit": BIG[:-1], "big": BIG, "run": File(b"#!", 0o755),
        "link": Link("small"), "dangling": Link(b"\xff"), "d": Dir({"e": {}, "f": b"x"}, 0o711), "sticky": Dir({}, 0o1777),
    }  # fmt: skip
    made = scene(literal)
    outcomes = made.cycle()
    assert made.same_content()
    assert ends(outcomes) == dict.fromkeys([path for path, _ in made.base.rows()], Status.DONE)
    assert (outcomes.next, outcomes.stopped, outcomes.puts, outcomes.removed) == (11, 0, 11, 0)
    assert outcomes.bytes == sum(len(each) for each in trees.contents(made.source))
    assert outcomes.aside == outcomes.dropped == outcomes.troubles == []
    for path, agreed in made.base.rows():
        source, target = (os.fsencode(top) + b"/" + path for top in (made.source, made.target))
        assert agreed.source == seen(source)
        assert agreed.target == seen(target) or agreed.kind == Kind.DIR  # which was filled afterwards
        assert agreed.mode == stat.S_IMODE(agreed.source.mode) == stat.S_IMODE(agreed.target.mode)
        if agreed.kind != Kind.DIR:
            assert agreed.mtime_ns == agreed.source.mtime_ns == agreed.target.mtime_ns
    assert made.base.get(b"small").digest == xxhash.xxh3_128(b"text").digest()
    assert made.base.get(b"link").link == b"small"
    assert made.base.get(b"d").digest is made.base.get(b"d").link is None
    assert made.quiet()


@pytest.mark.parametrize("name", ODD)
def test_odd_names(scene: Make, name: bytes) -> None:
    made = scene({name: {name: b"1", b"link": Link(name)}})
    made.cycle()
    assert made.same_content()
    build(made.source, {name: {name: b"2"}})
    made.cycle()
    assert made.same_content()
    assert made.quiet()
    shutil.rmtree(os.fsencode(made.source) + b"/" + name)
    made.cycle()
    assert trees.read(made.target) == {}


def test_paths_deeper_than_path_max(scene: Make) -> None:
    made = scene()
    literal: Any = {b"leaf": b"deep"}
    for _ in range(20):
        literal = {b"d" * 250: literal}
    build(made.source, literal)
    made.cycle()
    assert made.same_content()
    assert made.quiet()
    top = b"d" * 250
    os.rename(os.fsencode(made.source) + b"/" + top, os.fsencode(made.source) + b"/" + b"e" * 250)
    made.cycle()
    assert made.same_content()


@pytest.mark.parametrize(
    "time", [0, 1, -1, 999_999_999, 1_000_000_001, 4_102_444_800_123_456_789, -5_000_000_123], ids=str
)
def test_times_of_files_and_links(scene: Make, time: int) -> None:
    made = scene({"f": File(F1, mtime_ns=time), "big": File(BIG, mtime_ns=time), "l": Link("f")})
    os.utime(made.source / "l", ns=(time, time), follow_symlinks=False)
    made.cycle()
    for name in ("f", "big", "l"):
        assert os.lstat(made.target / name).st_mtime_ns == os.lstat(made.source / name).st_mtime_ns
    assert made.quiet()


@pytest.mark.parametrize("mode", [0o000, 0o200, 0o400, 0o444, 0o555, 0o640, 0o777, 0o1644])
def test_permission_bits(scene: Make, mode: int) -> None:
    made = scene({"f": File(F1, mode), "d": Dir({"x": b""}, mode)})
    made.cycle()
    assert stat.S_IMODE((made.target / "f").stat().st_mode) == mode
    assert stat.S_IMODE((made.target / "d").stat().st_mode) == mode
    assert made.quiet()


@pytest.mark.parametrize("data", [F1, BIG], ids=["small", "big"])
def test_setuid_and_setgid_are_dropped_and_told(scene: Make, data: bytes) -> None:
    made = scene({"u": File(data, 0o4755), "g": File(data, 0o2755), "plain": data})
    outcomes = made.cycle()
    assert sorted(outcomes.dropped) == [(b"g", stat.S_ISGID), (b"u", stat.S_ISUID)]
    assert stat.S_IMODE((made.target / "u").stat().st_mode) == 0o755
    assert made.base.get(b"g").mode == 0o755
    assert made.quiet()


def test_hard_links_become_files_and_are_remembered(scene: Make) -> None:
    made = scene({"a": F1, "c": F1})
    os.link(made.source / "a", made.source / "b")
    made.cycle()
    assert (made.target / "a").stat().st_nlink == 1
    assert made.base.shared() == [b"a", b"b"]
    (made.source / "b").unlink()
    made.cycle()
    assert made.base.shared() == []


def test_mount_points_are_remembered(scene: Make, mounts: Any) -> None:
    inner = mounts.tmpfs("inner")
    (inner / "x").write_bytes(F1)
    made = scene({"m": {}, "d": {}})
    mounts.bind(inner, made.source / "m")
    made.cycle()
    assert {path: row.mount for path, row in made.base.rows()} == {b"d": False, b"m": True, b"m/x": False}
    made.cycle()
    assert made.base.get(b"m").mount


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
@pytest.mark.parametrize("data", [F1, BIG], ids=["small", "big"])
def test_owners(scene: Make, data: bytes) -> None:
    made = scene({"f": data, "l": Link("x"), "d": {"x": F1}})
    for name in ("f", "l", "d", "d/x"):
        os.chown(made.source / name, 1234, 2345, follow_symlinks=False)
    made.cycle()
    for name in ("f", "l", "d", "d/x"):
        state = os.lstat(made.target / name)
        assert (state.st_uid, state.st_gid) == (1234, 2345)
    build(made.source, {"new": F1, "newdir": {}})
    made.cycle(owner=(77, 88))
    for name in ("new", "newdir"):
        state = os.lstat(made.target / name)
        assert (state.st_uid, state.st_gid) == (77, 88)


def test_holes_stay_holes(scene: Make) -> None:
    made = scene()
    with open(made.source / "f", "wb") as file:
        os.pwrite(file.fileno(), b"start", 0)
        os.pwrite(file.fileno(), b"middle", 4 << 20)
        os.ftruncate(file.fileno(), 16 << 20)
    with open(made.source / "hole", "wb") as file:
        os.ftruncate(file.fileno(), 1 << 20)
    with open(made.source / "small", "wb") as file:
        os.ftruncate(file.fileno(), 100_000)
    made.cycle()
    assert made.same_content()
    for name in ("f", "hole"):
        assert (made.target / name).stat().st_blocks <= (made.source / name).stat().st_blocks
    assert made.quiet()


# --- in place or beside -------------------------------------------------------------------------------

KEPT_INODE = [
    # write, old, new, mode, in place?
    ("auto", b"old", b"new", 0o644, True),
    ("auto", b"", b"x" * (128 << 10), 0o600, True),
    ("auto", b"old", b"longer", 0o644, True),
    ("auto", b"longer", b"new", 0o644, False),
    ("auto", b"old", b"new", 0o755, False),
    ("auto", b"old", BIG, 0o644, False),
    ("auto", BIG, BIG[::-1], 0o644, False),
    ("replace", b"old", b"new", 0o644, False),
    ("inplace", b"old", b"new", 0o644, True),
    ("inplace", b"old", b"new", 0o755, True),
    ("inplace", b"old", BIG, 0o644, True),
    ("inplace", BIG, BIG[::-1], 0o644, True),
    ("inplace", b"longer", b"new", 0o644, True),
]


@pytest.mark.parametrize(("write", "old", "new", "mode", "in_place"), KEPT_INODE)
def test_in_place_keeps_the_inode(scene: Make, write: str, old: bytes, new: bytes, mode: int, in_place: bool) -> None:
    made = scene({"f": File(old, mode)})
    made.cycle()
    before = (made.target / "f").stat().st_ino
    with open(made.target / "f", "rb") as reader:
        build(made.source, {"f": File(new, mode)})
        outcomes = made.cycle(write=write)
        assert reader.read() == (new if in_place else old)
    assert ends(outcomes) == {b"f": Status.DONE}
    assert made.same_content()
    assert ((made.target / "f").stat().st_ino == before) == in_place
    assert made.quiet()


def unequal_mode(made: Any) -> None:
    (made.source / "f").chmod(0o600)


def linked(made: Any) -> None:
    os.link(made.target / "f", made.target.parent / "elsewhere")


def unequal_owner(made: Any) -> None:
    os.chown(made.source / "f", 12, 12)


@pytest.mark.parametrize("write", ["auto", "inplace"])
@pytest.mark.parametrize("do", [unequal_mode, linked, unequal_owner])
def test_a_file_that_is_not_alone_or_not_alike_is_replaced(scene: Make, write: str, do: Any) -> None:
    made = scene({"f": b"old"})
    made.cycle()
    do(made)
    before = (made.target / "f").stat().st_ino
    (made.source / "f").write_bytes(b"new")
    made.cycle(write=write)
    assert (made.target / "f").stat().st_ino != before
    assert made.same_content()
    if do is linked:
        assert (made.target.parent / "elsewhere").read_bytes() == b"old"
    assert made.quiet()


@pytest.mark.parametrize("write", ["auto", "inplace"])
def test_a_target_somebody_writes_is_replaced(scene: Make, write: str) -> None:
    made = scene({"f": b"old"})
    made.cycle()
    (made.source / "f").write_bytes(b"new")
    diff = made.look()
    with open(made.target / "f", "r+b"):
        before = (made.target / "f").stat().st_ino
        made.place(diff, write=write)
    assert (made.target / "f").stat().st_ino != before
    assert made.same_content()


def test_a_target_in_use_stays_readable(scene: Make) -> None:
    made = scene({"f": BIG})
    made.cycle()
    with open(made.target / "f", "rb") as reader:
        (made.source / "f").write_bytes(b"new")
        made.cycle()
        assert reader.read() == BIG
    assert made.same_content()


def test_links_are_replaced(scene: Make) -> None:
    made = scene({"l": Link("one")})
    made.cycle()
    (made.source / "l").unlink()
    (made.source / "l").symlink_to("two")
    made.cycle()
    assert made.same_content()
    assert made.quiet()


def test_direct_creation(scene: Make) -> None:
    made = scene({"f": F1, "big": BIG, "d": {"x": File(F2, 0o755, 5), "l": Link("x")}})
    outcomes = made.cycle(direct=True)
    assert set(ends(outcomes).values()) == {Status.DONE}
    assert made.same_content()
    assert made.quiet()


def test_direct_creation_overwrites_nothing(scene: Make) -> None:
    made = scene({"f": F1, "big": BIG})
    diff = made.look()
    build(made.target, {"f": F2, "big": F3})
    outcomes = made.place(diff, direct=True)
    assert ends(outcomes) == {b"f": Status.CHANGED, b"big": Status.CHANGED}
    assert trees.contents(made.target) == sorted([F2, F3])


def test_missing_directories_on_the_way_are_made_as_the_source_has_them(scene: Make) -> None:
    made = scene({"a": Dir({"b": Dir({"f": F1}, 0o711)}, 0o750)})
    made.cycle()
    shutil.rmtree(made.target / "a")
    (made.source / "a/b/f").write_bytes(F2)
    diff = made.look()
    assert made.lines(diff) == {Line.LOST: [b"a", b"a/b"], Line.CONFLICT: [b"a/b/f"]}
    made.place(diff)
    assert made.same_content()
    assert stat.S_IMODE((made.target / "a").stat().st_mode) == 0o750
    assert stat.S_IMODE((made.target / "a/b").stat().st_mode) == 0o711
    assert made.quiet()


@pytest.mark.parametrize("held", [b"a file", Link("/"), Link("nowhere"), Fifo()], ids=str)
def test_what_stands_on_the_way_is_set_aside(scene: Make, held: Any) -> None:
    made = scene({"a": {"b": {"f": F1}}})
    made.cycle()
    shutil.rmtree(made.target / "a/b")
    build(made.target / "a", {"b": held})
    (made.source / "a/b/f").write_bytes(F2)
    outcomes = made.cycle()
    assert made.same_content()
    kept = kept_path(outcomes, b"a/b")
    assert trees.read(os.fsencode(made.staging) + b"/" + os.path.dirname(kept)) == {os.path.basename(kept): held}


# --- records ------------------------------------------------------------------------------------------


def test_equal_files_are_recorded_with_mode_and_mtime(scene: Make) -> None:
    made = scene({"f": File(F1, 0o640, 111), "d": Dir({}, 0o711)}, {"f": File(F1, 0o600, 222), "d": Dir({}, 0o700)})
    before = (made.target / "f").stat().st_ino
    outcomes = made.cycle()
    assert ends(outcomes) == {b"f": Status.SAME, b"d": Status.SAME}
    assert (outcomes.puts, outcomes.removed, outcomes.bytes) == (0, 0, 0)
    state = (made.target / "f").stat()
    assert (state.st_ino, state.st_mtime_ns, stat.S_IMODE(state.st_mode)) == (before, 111, 0o640)
    assert stat.S_IMODE((made.target / "d").stat().st_mode) == 0o711
    assert made.quiet()


def test_equal_links_are_recorded_with_their_mtime(scene: Make) -> None:
    made = scene({"l": Link("x")}, {"l": Link("x")})
    os.utime(made.source / "l", ns=(5, 5), follow_symlinks=False)
    assert ends(made.cycle()) == {b"l": Status.SAME}
    assert os.lstat(made.target / "l").st_mtime_ns == 5
    assert made.quiet()


def test_a_touched_source_writes_only_metadata(scene: Make) -> None:
    made = scene({"f": F1, "big": BIG})
    made.cycle()
    before = {name: (made.target / name).stat().st_ino for name in ("f", "big")}
    for name in before:
        os.utime(made.source / name, ns=(99, 99))
        (made.source / name).chmod(0o604)
    diff = made.look()
    assert made.lines(diff) == {Line.CHANGED: [b"big", b"f"]}
    outcomes = made.place(diff)
    assert ends(outcomes) == {b"big": Status.SAME, b"f": Status.SAME}
    for name, inode in before.items():
        state = (made.target / name).stat()
        assert (state.st_ino, state.st_mtime_ns, stat.S_IMODE(state.st_mode)) == (inode, 99, 0o604)
    assert (outcomes.puts, outcomes.bytes) == (0, 0)
    assert made.quiet()


def test_both_missing_drops_the_row(scene: Make) -> None:
    made = scene({"d": {"f": F1}})
    made.cycle()
    for top in (made.source, made.target):
        shutil.rmtree(top / "d")
    outcomes = made.cycle()
    assert ends(outcomes) == {b"d": Status.SAME, b"d/f": Status.SAME}
    assert len(made.base) == 0


def test_a_record_of_a_changed_target_learns_nothing(scene: Make) -> None:
    made = scene({"f": F1, "d": {}, "l": Link("x"), "n": F1})
    made.cycle()
    for name in ("f", "d", "n"):
        os.utime(made.source / name, ns=(5, 5))
    os.utime(made.source / "l", ns=(5, 5), follow_symlinks=False)
    diff = made.look(exact=True)
    assert diff.count(Line.AGREED) == 4
    build(made.target, {"f": b"container's"})
    shutil.rmtree(made.target / "d")
    build(made.target, {"d": Link("f")})
    (made.target / "l").unlink()
    (made.target / "n").unlink()
    before = dict(made.base.rows())
    outcomes = made.place(diff)
    assert set(ends(outcomes).values()) == {Status.CHANGED}
    assert dict(made.base.rows()) == before
    assert trees.read(made.target) == {b"d": Link(b"f"), b"f": b"container's"}


# --- the source moves on ------------------------------------------------------------------------------


def test_the_newest_content_is_put(scene: Make) -> None:
    made = scene({"f": F1, "l": Link("one")})
    diff = made.look()
    (made.source / "f").write_bytes(b"newer than the scan")
    (made.source / "l").unlink()
    (made.source / "l").symlink_to("two")
    made.place(diff)
    assert made.same_content()
    assert made.base.get(b"f").source == seen(made.source / "f")
    assert made.base.get(b"l").link == b"two"
    assert made.quiet()


@pytest.mark.parametrize("now", [None, {}, Link("/etc/passwd"), Fifo()], ids=str)
def test_a_source_that_vanished_or_is_of_another_kind(scene: Make, now: Any) -> None:
    made = scene({"f": F1})
    made.cycle()
    (made.source / "f").write_bytes(F2)
    diff = made.look()
    (made.source / "f").unlink()
    if now is not None:
        build(made.source, {"f": now})
    outcomes = made.place(diff)
    assert ends(outcomes) == {b"f": Status.VANISHED}
    assert trees.read(made.target) == {b"f": F1}
    assert made.base.get(b"f").digest == xxhash.xxh3_128(F1).digest()


def test_a_source_directory_that_vanished(scene: Make) -> None:
    made = scene({"d": {"f": F1}, "g": F1})
    diff = made.look()
    shutil.rmtree(made.source / "d")
    outcomes = made.place(diff)
    assert ends(outcomes) == {b"d": Status.VANISHED, b"d/f": Status.VANISHED, b"g": Status.DONE}
    assert made.same_content()


@pytest.mark.parametrize("data", [F2, BIG], ids=["small", "big"])
def test_a_source_somebody_writes_is_busy(scene: Make, data: bytes) -> None:
    made = scene({"f": F1, "g": F1})
    made.cycle()
    build(made.source, {"f": data, "g": F2})
    diff = made.look()
    with open(made.source / "f", "r+b"):
        outcomes = made.place(diff)
    assert ends(outcomes) == {b"f": Status.BUSY, b"g": Status.DONE}
    assert (made.target / "f").read_bytes() == F1
    made.cycle()
    assert made.same_content()
    assert made.quiet()


@pytest.mark.parametrize("data", [F2, BIG], ids=["small", "big"])
def test_patience_takes_a_file_held_open_that_stays_the_same(scene: Make, data: bytes) -> None:
    made = scene({"f": data})
    with open(made.source / "f", "r+b"):
        outcomes = made.cycle(patient=True)
    assert ends(outcomes) == {b"f": Status.DONE}
    assert made.same_content()
    assert made.quiet()


@pytest.mark.skipif(os.geteuid() != 0, reason="the test has to be two users")
def test_a_source_that_may_not_be_read_fails_alone(scene: Make, as_user: Any) -> None:
    made = scene({"f": File(F1, 0o000), "g": F1})
    with as_user(made):
        outcomes = made.cycle()
    assert ends(outcomes) == {b"f": Status.FAILED, b"g": Status.DONE}
    (trouble,) = outcomes.troubles
    assert (trouble.path, trouble.op, trouble.side) == (b"f", "read", Side.SOURCE)


# --- removals -----------------------------------------------------------------------------------------


def test_removals(scene: Make) -> None:
    made = scene({"d": {"e": {"f": F1}, "l": Link("x")}, "g": F1})
    made.cycle()
    shutil.rmtree(made.source / "d")
    outcomes = made.cycle()
    assert set(ends(outcomes).values()) == {Status.DONE, Status.SAME} - {Status.SAME}
    assert (outcomes.removed, outcomes.puts) == (4, 0)
    assert trees.read(made.target) == {b"g": F1}
    assert [path for path, _ in made.base.rows()] == [b"g"]


@pytest.mark.parametrize("extra", [b"made by the container", Link("x"), {}, Fifo()], ids=str)
def test_a_directory_that_holds_something_is_kept(scene: Make, extra: Any) -> None:
    made = scene({"d": {"f": F1}})
    made.cycle()
    build(made.target / "d", {"extra": extra})
    shutil.rmtree(made.source / "d")
    outcomes = made.cycle()
    assert ends(outcomes) == {b"d/f": Status.DONE, b"d": Status.KEPT}
    assert trees.read(made.target) == {b"d": {b"extra": extra}}
    assert len(made.base) == 0


def test_a_directory_that_holds_ignored_names_or_an_overlay_is_kept(scene: Make) -> None:
    made = scene({"d": {"f": F1}, "e": {"f": F1}}, ignore=b"*.log", overlays=[b"e/over"])
    made.cycle()
    build(made.target, {"d": {"a.log": F2}, "e": {"over": {}}})
    shutil.rmtree(made.source / "d")
    shutil.rmtree(made.source / "e")
    made.cycle()
    assert trees.read(made.target) == {b"d": {b"a.log": F2}, b"e": {b"over": {}}}


@pytest.mark.parametrize("now", [F2, Link("x"), {"x": F2}, {}, Fifo()], ids=str)
def test_only_what_the_scan_saw_is_removed(scene: Make, now: Any) -> None:
    made = scene({"f": F1})
    made.cycle()
    (made.source / "f").unlink()
    diff = made.look()
    (made.target / "f").unlink()
    build(made.target, {"f": now})
    outcomes = made.place(diff)
    assert ends(outcomes) == {b"f": Status.CHANGED}
    assert trees.read(made.target) == trees.as_bytes({"f": now})
    assert made.base.get(b"f") is not None


def test_what_is_gone_already_is_removed_as_planned(scene: Make) -> None:
    made = scene({"d": {"f": F1}})
    made.cycle()
    shutil.rmtree(made.source / "d")
    diff = made.look()
    shutil.rmtree(made.target / "d")
    outcomes = made.place(diff)
    assert outcomes.removed == 0
    assert Status.FAILED not in outcomes.counts()
    made.cycle()
    assert len(made.base) == 0


# --- the target moved on ------------------------------------------------------------------------------

NOWS = [
    (F1, F2),
    (F1, None),
    (F1, Link("x")),
    (F1, {"x": F2}),
    (None, F2),
    (None, {"x": F2}),
    (None, Link("x")),
    (Link("x"), Link("y")),
    (Link("x"), F2),
    (Link("x"), {"x": F2}),
    ({}, F2),
    ({}, None),
]


NEWS = {"small": b"new", "big": BIG, "link": Link("new"), "dir": {"new": F3}}


@pytest.mark.parametrize("verbs", [KEEP, MIRROR], ids=["keep", "mirror"])
@pytest.mark.parametrize(
    ("was", "now", "new"),
    [
        (was, now, new)
        for was, now in NOWS
        for new in NEWS.values()
        if not isinstance(was, dict) or not isinstance(new, dict)
    ],
    ids=lambda value: str(value)[:20],
)
def test_another_target_than_the_plan_believed_is_untouched(
    scene: Make, verbs: Any, was: Any, now: Any, new: Any
) -> None:
    literal = {} if was is None else {"p": was}
    made = scene(literal, literal)
    made.cycle()
    if was is not None:
        remove(made.source / "p")
    build(made.source, {"p": new})
    diff = made.look()
    if was is not None:
        remove(made.target / "p")
    if now is not None:
        build(made.target, {"p": now})
    inode = None if now is None else os.lstat(made.target / "p").st_ino
    outcomes = made.place(diff, verbs)
    assert ends(outcomes)[b"p"] == Status.CHANGED
    if isinstance(new, dict) and now is not None:
        # What it holds is put, so that the entry on the way is set aside; but nothing is lost.
        assert not isinstance(now, bytes) or now in trees.contents(made.target) + made.kept()
    elif now is not None:
        assert trees.read(made.target) == trees.as_bytes({"p": now})
        assert os.lstat(made.target / "p").st_ino == inode
        assert outcomes.aside == []
    elif not isinstance(new, dict):
        assert trees.read(made.target) == {}
    made.cycle(verbs=verbs)
    assert trees.read(made.target)[b"p"] == trees.as_bytes({"p": new})[b"p"] or verbs is KEEP


def remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def test_a_rewritten_target_with_its_old_time_is_another(scene: Make) -> None:
    made = scene({"f": b"old"})
    made.cycle()
    (made.source / "f").write_bytes(b"new")
    diff = made.look()
    state = (made.target / "f").stat()
    (made.target / "f").write_bytes(b"bad")
    os.utime(made.target / "f", ns=(state.st_atime_ns, state.st_mtime_ns))
    assert ends(made.place(diff)) == {b"f": Status.CHANGED}
    assert (made.target / "f").read_bytes() == b"bad"


# --- replacements -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("new", "held"),
    [
        (new, held)
        for new in (F3, BIG, Link("new"), {"x": F3}, None)
        for held in (F2, Link("edited"), {"edited": F2}, Fifo())
        if not isinstance(new, dict) or not isinstance(held, dict)  # directories are equal
    ],
    ids=lambda value: str(value)[:20],
)
def test_a_conflict_is_set_aside(scene: Make, new: Any, held: Any) -> None:
    made = scene({"d": {"p": F1}})
    made.cycle()
    remove(made.source / "d/p")
    remove(made.target / "d/p")
    if new is not None:
        build(made.source, {"d": {"p": new}})
    build(made.target, {"d": {"p": held}})
    outcomes = made.cycle(verbs=MIRROR)
    assert made.same_content()
    kept = kept_path(outcomes, b"d/p")
    found = trees.read(os.fsencode(made.staging) + b"/" + os.path.dirname(kept))
    assert found == trees.as_bytes({os.path.basename(kept): held})
    assert (outcomes.puts > 0) == (new is not None)
    assert outcomes.removed == (new is None)
    assert made.quiet()


def test_set_aside_names_are_numbered(scene: Make) -> None:
    name = b"n" * 255
    kept = set()
    made = scene({name: F1, "short": F1})
    made.cycle()
    for number in range(4):
        for each in (name, b"short"):
            build(made.source, {each: b"source %d" % number})
            build(made.target, {each: b"container %d" % number})
        outcomes = made.cycle()
        kept |= {path for _, path in outcomes.aside}
        assert made.same_content()
    assert len(kept) == 8
    assert made.kept() == sorted([b"container %d" % number for number in range(4)] * 2)


def test_the_same_name_in_two_directories_and_under_a_file_set_aside(scene: Make) -> None:
    made = scene({"a": {"x": F1}, "b": {"x": F1}})
    made.cycle()
    for top in ("a", "b"):
        (made.source / top / "x").write_bytes(b"source")
        (made.target / top / "x").write_bytes(b"in " + top.encode())
    made.cycle()
    shutil.rmtree(made.target / "a")
    build(made.target, {"a": b"a file now"})
    build(made.source, {"a": {"x": b"source again"}})
    made.cycle()
    build(made.source, {"a": {"x": b"source once more"}})
    build(made.target, {"a": {"x": b"in a again"}})
    made.cycle()
    assert made.kept() == sorted([b"in a", b"in b", b"a file now", b"in a again"])
    assert made.same_content()


def test_set_aside_directories_are_private(scene: Make) -> None:
    made = scene({"d": {"f": F1}}, {"d": {"f": F2}})
    made.cycle()
    for directory, _, _ in os.walk(made.staging / "conflicts"):
        assert stat.S_IMODE(os.stat(directory).st_mode) == 0o700


def test_if_setting_aside_fails_nothing_is_touched(scene: Make) -> None:
    made = scene({"f": F1, "g": F1}, {"f": F2, "g": F1})
    (made.staging / "conflicts").write_bytes(b"in the way of the directory")
    (made.staging / "conflicts").chmod(0o600)
    diff = made.look()
    outcomes = made.place(diff, aside=b"conflicts/" + b"x" * 300)  # a name that no filesystem takes
    assert ends(outcomes) == {b"f": Status.FAILED, b"g": Status.SAME}
    assert trees.read(made.target) == {b"f": F2, b"g": F1}


def test_a_made_subtree_is_set_aside_whole(scene: Make) -> None:
    made = scene({}, {"d": {"e": {"f": F1}, "g": F2}})
    outcomes = made.cycle(verbs=MIRROR)
    assert trees.read(made.target) == {}
    assert made.kept() == sorted([F1, F2])
    assert Status.FAILED not in outcomes.counts()
    assert Status.CHANGED not in outcomes.counts()


def test_lost_entries_are_made_again(scene: Make) -> None:
    made = scene({"d": {"f": F1, "l": Link("x")}})
    made.cycle()
    shutil.rmtree(made.target / "d")
    made.cycle(verbs=MIRROR)
    assert made.same_content()
    assert made.quiet()


# --- directories and their modes ----------------------------------------------------------------------


@pytest.mark.skipif(os.geteuid() != 0, reason="the test has to be two users")
@pytest.mark.parametrize("size", [1, 2000])
def test_directories_that_forbid_writing(scene: Make, as_user: Any, size: int) -> None:
    made = scene({"d": Dir({"e": Dir({"f": F1}, 0o500), "g": F1}, 0o555)})
    with as_user(made):
        made.place(made.look(), size=size)
    assert made.same_content()
    for name, mode in (("d", 0o555), ("d/e", 0o500)):
        assert stat.S_IMODE((made.target / name).stat().st_mode) == mode
    assert (made.target / "d/e/f").stat().st_uid == NOBODY
    (made.source / "d/e/f").write_bytes(F2 + F2)
    (made.source / "d/g").unlink()
    with as_user(made):
        made.place(made.look(), size=size, write="replace")
    assert made.same_content()
    with as_user(made):
        diff = made.look()
    assert set(made.lines(diff)) == set()
    for name, mode in (("d", 0o555), ("d/e", 0o500)):
        assert stat.S_IMODE((made.target / name).stat().st_mode) == mode


@pytest.mark.parametrize("size", [1, 3, 2000])
def test_slices_of_any_size_come_to_the_same(scene: Make, size: int) -> None:
    made = scene({"a": {"b": {"c": F1}}, "d": Dir({"e": F2}, 0o500), "f": F3, "l": Link("f")})
    made.place(made.look(), size=size)
    assert made.same_content()
    assert stat.S_IMODE((made.target / "d").stat().st_mode) == 0o500
    assert made.quiet()


def test_a_cancelled_call_starts_again_where_it_ended(scene: Make) -> None:
    made = scene({"a": F1, "b": F1})
    diff = made.look()
    actions = diff.actions(KEEP)
    made.control.cancelled = True
    outcomes = made.kernel.place(*made.roots, made.rules, made.base, actions, 0, 2, made.options(), made.control)
    assert (outcomes.next, outcomes.counts()) == (0, {})
    assert trees.read(made.target) == {}
    made.control.cancelled = False
    made.tidy()
    made.place(diff)
    assert made.same_content()


def test_no_actions(scene: Make) -> None:
    made = scene()
    outcomes = made.place(made.look())
    assert (outcomes.next, outcomes.stopped, outcomes.bytes, outcomes.counts()) == (0, 0, 0, {})


def test_a_verb_for_a_line_is_all_that_place_knows(scene: Make) -> None:
    made = scene({"f": F1})
    made.cycle()
    (made.target / "f").write_bytes(F2)
    made.cycle(verbs={Line.EDITED: Verb.REPLACE})
    assert made.same_content()
    assert made.kept() == [F2]


@pytest.mark.parametrize("size", [3, 10_000, 300_000])
@pytest.mark.parametrize("write", ["auto", "replace", "inplace"])
def test_what_is_written_through_a_held_descriptor_is_kept(scene: Make, write: str, size: int) -> None:
    """A log that a container holds open, say: its file has no name any more, and is not dropped."""
    made = scene({"log": b"x" * size})
    made.cycle()
    with open(made.target / "log", "ab", buffering=0) as held:
        (made.source / "log").write_bytes(b"other")
        outcomes = made.cycle(write=write)
        held.write(b"MARK")
    assert (made.target / "log").read_bytes() == b"other"
    assert outcomes.aside == [(b"log", b"conflicts/now/log")]
    assert made.kept() == [b"x" * size + b"MARK"]


def test_of_many_replaced_at_once_the_one_that_is_held_is_kept(scene: Make) -> None:
    names = [f"f{number:03}" for number in range(150)]
    made = scene({name: b"first " + name.encode() for name in names})
    made.cycle()
    with open(made.target / "f077", "ab", buffering=0) as held:
        for name in names:
            (made.source / name).write_bytes(name.encode())
        outcomes = made.cycle(write="replace")
        held.write(b"MARK")
    assert outcomes.aside == [(b"f077", b"conflicts/now/f077")]
    assert made.kept() == [b"first f077MARK"]
    assert made.same_content()
    made.tidy()


@pytest.mark.parametrize("count", [1, 150])
def test_what_is_written_later_into_a_removed_file_is_kept(scene: Make, count: int) -> None:
    names = [f"f{number:03}" for number in range(count)]
    made = scene({"d": dict.fromkeys(names, b"x"), "stays": b""})
    made.cycle()
    with open(made.target / "d" / "f000", "ab", buffering=0) as held, open(made.target / "d" / names[-1], "rb"):
        shutil.rmtree(made.source / "d")
        outcomes = made.cycle()
        held.write(b"MARK")
    assert outcomes.aside == [(b"d/f000", b"conflicts/now/d/f000")]
    assert made.kept() == [b"xMARK"]
    assert made.same_content()
    assert made.quiet()


def test_a_reader_holds_nothing_back(scene: Make) -> None:
    made = scene({"f": b"longer than the next"})
    made.cycle()
    with open(made.target / "f", "rb"):
        (made.source / "f").write_bytes(b"short")
        assert made.cycle().aside == []
    assert made.quiet()
