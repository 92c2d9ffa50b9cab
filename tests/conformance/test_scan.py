"""Scan, in both bodies: what stands there, what is unknown, and what a scope comes to."""

from __future__ import annotations

import errno
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from syncd.kernel.contract import Look, RuleSource, Side
from syncd.model.change import Line
from syncd.model.entry import Agreed, Entry, Fingerprint, Kind
from tests.conformance.conftest import Make
from tests.trees import Dir, Fifo, File, Link, build

ZERO = Fingerprint(0, 0, 0, 0, 0)


def agreed_from(entry: Entry, side: Side = Side.SOURCE, digest: bytes | None = None, **more: Any) -> Agreed:
    seen = (entry.seen, ZERO) if side is Side.SOURCE else (ZERO, entry.seen)
    return Agreed(entry.kind, entry.seen.mode & 0o1777, entry.seen.mtime_ns, digest, entry.link, *seen, **more)


def learn(made: Any, *paths: bytes, **more: Any) -> None:
    """Put what the source holds at these paths into the baseline."""
    tree = made.scan()[0]
    rows = [(path, agreed_from(tree.get(path), digest=b"x" * 16, **more)) for path in paths]
    made.base = made.kernel.settle(made.base, rows, made.journal)


# --- entries ------------------------------------------------------------------------------------------


def test_every_kind_is_seen_as_lstat_sees_it(scene: Make) -> None:
    made = scene({"f": File(b"abc", 0o640, 12345), "d": Dir({"x": b""}, 0o750), "l": Link("f"), "p": Fifo()})
    tree, _ = made.scan()
    for name, kind in {b"f": Kind.FILE, b"d": Kind.DIR, b"l": Kind.LINK, b"p": Kind.OTHER}.items():
        seen = os.lstat(os.path.join(os.fsencode(made.source), name))
        entry = tree.get(name)
        assert entry is not None
        assert entry.kind == kind
        assert entry.digest is None
        assert entry.link == (b"f" if kind == Kind.LINK else None)
        assert entry.seen == (seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns, seen.st_ino, seen.st_mode)
    assert tree.others == [b"p"]
    assert tree.troubles == []
    assert tree.bytes == 3
    assert len(tree) == 5
    assert tree.scope is None
    assert tree.get(b"nowhere") is None
    assert tree.get(b"f/below") is None


def test_rows_are_in_order_component_by_component(scene: Make) -> None:
    made = scene({"a": {"z": b"", "b": {"c": b""}}, "a.txt": b"", "a-": b"", "\x01": b""})
    tree, _ = made.scan()
    order = [b"\x01", b"a", b"a/b", b"a/b/c", b"a/z", b"a-", b"a.txt"]
    assert [path for path, _ in tree.rows()] == order
    assert [path for path, _ in tree.rows(b"a")] == [b"a/b", b"a/b/c", b"a/z"]
    assert list(tree.rows(b"a/z")) == []
    assert list(tree.rows(b"nowhere")) == []


@pytest.mark.parametrize("name", [b"n" * 255, b"\xff\xfe", b"new\nline", b" ", b"-rf", b"\\", "größe ✓".encode()])
def test_odd_names(scene: Make, name: bytes) -> None:
    made = scene({name: {name: b"x"}})
    tree, _ = made.scan()
    assert [path for path, _ in tree.rows()] == [name, name + b"/" + name]


@pytest.mark.parametrize("name", [b"d" * 255, b"d" * 20])
def test_paths_deeper_than_path_max(scene: Make, name: bytes) -> None:
    depth = 5000 // (len(name) + 1) + 1
    literal: dict[bytes, Any] = {b"leaf": b"deep"}
    fd = None
    made = scene()
    path = b"/".join([name] * depth)
    fd = os.open(made.source, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir(name, dir_fd=fd)
        below = os.open(name, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    build(f"/proc/self/fd/{fd}/.", literal)
    os.close(fd)
    tree, _ = made.scan()
    assert len(tree) == depth + 1
    assert tree.get(path + b"/leaf").seen.size == 4
    shallow, _ = made.scan([Look(path + b"/leaf", False)])
    assert shallow.get(path + b"/leaf") is not None or shallow.scope  # the topmost directory that the baseline lacks
    digests = made.kernel.hash_many(made.roots[0], [path + b"/leaf"], made.control)
    assert isinstance(digests[0], bytes)
    subprocess.run(["rm", "-rf", str(made.source)], check=True)


def test_links_are_never_followed(scene: Make, tmp_path: Path) -> None:
    build(tmp_path / "outside", {"secret": b"s"})
    made = scene({"out": Link(tmp_path.as_posix() + "/outside"), "up": Link("..")})
    tree, _ = made.scan()
    assert [path for path, _ in tree.rows()] == [b"out", b"up"]
    places, _ = made.scan([Look(b"out/secret", True)])
    assert places.get(b"out/secret") is None
    assert made.kernel.stat_many(made.roots[0], [b"out/secret", b"up/source"]) == [None, None]


def test_a_known_fingerprint_takes_over_its_digest(scene: Make) -> None:
    made = scene({"same": b"1", "other": b"2"})
    learn(made, b"same", b"other")
    (made.source / "other").write_bytes(b"3")
    tree, _ = made.scan()
    assert tree.get(b"same").digest == b"x" * 16
    assert tree.get(b"other").digest is None


def test_each_side_compares_with_its_own_fingerprint(scene: Make) -> None:
    made = scene({"f": b"1"}, {"f": b"1"})
    source, target = made.scan()
    row = agreed_from(source.get(b"f"), digest=b"x" * 16)._replace(target=target.get(b"f").seen)
    for part, digests in (
        ({}, (b"x" * 16,) * 2),
        ({"source": ZERO}, (None, b"x" * 16)),
        ({"target": ZERO}, (b"x" * 16, None)),
    ):
        made.base = made.kernel.settle(made.base, [(b"f", row._replace(**part))], made.journal)
        source, target = made.scan()
        assert (source.get(b"f").digest, target.get(b"f").digest) == digests


def test_the_roots_own_times_are_seen(scene: Make) -> None:
    made = scene({"a": b""})
    tree, _ = made.scan()
    root = tree.get(b"")
    assert root is not None
    assert root.kind == Kind.DIR
    assert root.seen.inode == made.source.stat().st_ino
    assert b"" not in [path for path, _ in tree.rows()]


# --- rules --------------------------------------------------------------------------------------------


def test_excluded_names_are_passed_over_on_both_sides(scene: Make) -> None:
    literal = {"keep": b"", "drop.log": b"", "build": {"x": b""}, "over": {"y": b""}}
    made = scene(literal, literal, ignore=b"*.log\n/build/\n", overlays=[b"over"])
    for tree in made.scan():
        assert [path for path, _ in tree.rows()] == [b"keep"]


def test_a_source_walk_reads_nested_rule_files(scene: Make) -> None:
    made = scene(
        {"d": {".ign": b"*.tmp\n", "a.tmp": b"", "b": b""}, "a.tmp": b""}, {"d": {"c.tmp": b""}}, nested=[b".ign"]
    )
    source, target = made.scan()
    assert [path for path, _ in source.rows()] == [b"a.tmp", b"d", b"d/.ign", b"d/b"]
    assert [path for path, _ in target.rows()] == [b"d"]


def test_a_partial_source_walk_reads_nested_rule_files_on_its_way(scene: Make) -> None:
    made = scene({".ign": b"no*\n", "d": {"no": b"", "yes": b""}}, nested=[b".ign"])
    learn_dirs = made.kernel.settle(made.base, [(b"d", agreed_from(made.scan()[0].get(b"d")))], made.journal)
    made.base = learn_dirs
    made.rules = made.kernel.compile_rules(*made.rule_arguments)
    tree, _ = made.scan([Look(b"d/no", False), Look(b"d/yes", False)])
    assert [look.path for look in tree.scope] == [b"d", b"d/yes"]
    assert tree.get(b"d/no") is None
    assert tree.get(b"d/yes") is not None


# --- absent and unknown -------------------------------------------------------------------------------


def test_what_cannot_be_read_is_trouble_and_not_absent(scene: Make) -> None:
    made = scene({"d": {"x": b""}, "f": b""})
    name = b"x" * 300  # ENAMETOOLONG is no word about absence
    assert made.kernel.stat_many(made.roots[0], [b"f/x", b"nowhere", b"d/" + name]) == [None, None, errno.ENAMETOOLONG]
    tree, _ = made.scan([Look(b"d/" + name, False)])
    assert [(t.path, t.errno, t.op, t.side) for t in tree.troubles] == [
        (b"d/" + name, errno.ENAMETOOLONG, "scan", Side.SOURCE)
    ]


def test_a_directory_that_may_not_be_read_is_unknown(scene: Make, as_user: Any) -> None:
    made = scene({"d": Dir({"x": b""}, 0o000), "f": b""})
    with as_user(made):
        tree, _ = made.scan()
    assert [(t.path, t.errno, t.op) for t in tree.troubles] == [(b"d", errno.EACCES, "scan")]
    assert tree.get(b"f") is not None
    assert tree.get(b"d/x") is None


def test_an_unreadable_root_raises(scene: Make, as_user: Any) -> None:
    made = scene({"f": b""})
    made.source.chmod(0o000)
    with as_user(made), pytest.raises(PermissionError):
        made.scan()
    made.source.chmod(0o755)


def test_a_removed_root_raises(scene: Make) -> None:
    made = scene()
    made.source.rmdir()
    for scope in (None, [Look(b"a", False)]):
        with pytest.raises(FileNotFoundError):
            made.scan(scope)


def test_open_root_raises_for_what_is_no_directory(kernel: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for name, error in ((b"nowhere", FileNotFoundError), (b"file", NotADirectoryError)):
        with pytest.raises(error):
            kernel.open_root(os.fsencode(tmp_path) + b"/" + name)


def test_open_root_follows_the_users_link(kernel: Any, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    root = kernel.open_root(os.fsencode(tmp_path / "link"))
    state = (tmp_path / "real").stat()
    assert (root.device, root.inode) == (state.st_dev, state.st_ino)
    root.close()
    root.close()


def test_a_cancelled_scan_says_that_it_does_not_know(scene: Make) -> None:
    made = scene({"a": {"b": b""}})
    made.control.cancelled = True
    tree, _ = made.scan()
    assert tree.get(b"a/b") is None
    diff = made.kernel.diff(made.base, tree, tree)
    assert tree.troubles
    assert all(t.errno == errno.ECANCELED for t in tree.troubles)
    made.control.cancelled = False
    assert diff.unexplained == 0


def test_entries_are_counted(scene: Make) -> None:
    made = scene({"a": {"b": b""}})
    made.kernel.scan(made.roots[0], made.rules, Side.SOURCE, made.base, None, made.control)
    assert made.control.entries == 2


def test_a_fifo_is_not_opened(scene: Make) -> None:
    made = scene({"p": Fifo()}, {"p": Fifo()})
    made.look()  # would block for ever
    assert made.kernel.hash_many(made.roots[0], [b"p"], made.control) == [errno.ENOENT]


# --- scope --------------------------------------------------------------------------------------------


def scoped(made: Any, *looks: tuple[bytes, bool]) -> tuple[Any, list[tuple[bytes, bool]]]:
    tree, _ = made.scan([Look(*each) for each in looks])
    return tree, [tuple(look) for look in tree.scope]


def test_a_known_directory_is_looked_at_as_asked(scene: Make) -> None:
    made = scene({"d": {"x": b"", "e": {"y": b""}}})
    learn(made, b"d", b"d/x", b"d/e", b"d/e/y")
    tree, scope = scoped(made, (b"d", False))
    assert scope == [(b"", False), (b"d", False)]
    assert [path for path, _ in tree.rows()] == [b"d"]
    tree, scope = scoped(made, (b"d", True))
    assert scope == [(b"", False), (b"d", True)]
    assert len(tree) == 4


def test_a_file_counts_as_deep_and_its_directory_is_looked_at(scene: Make) -> None:
    made = scene({"d": {"x": b"", "y": b""}})
    learn(made, b"d", b"d/x", b"d/y")
    tree, scope = scoped(made, (b"d/x", False))
    assert scope == [(b"d", False), (b"d/x", True)]
    assert [path for path, _ in tree.rows()] == [b"d", b"d/x"]


def test_a_directory_the_baseline_lacks_counts_as_deep(scene: Make) -> None:
    made = scene({"new": {"x": {"y": b""}}})
    tree, scope = scoped(made, (b"new", False))
    assert scope == [(b"", False), (b"new", True)]
    assert len(tree) == 3


def test_new_directories_on_the_way_are_looked_at_only(scene: Make) -> None:
    made = scene({"a": {"b": {"c": b"", "other": b""}}})
    tree, scope = scoped(made, (b"a/b/c", False))
    assert scope == [(b"a", False), (b"a/b", False), (b"a/b/c", True)]
    assert [path for path, _ in tree.rows()] == [b"a", b"a/b", b"a/b/c"]


def test_a_place_below_a_vanished_directory_stands_for_the_topmost(scene: Make) -> None:
    made = scene({"d": {"e": {"f": b""}}})
    learn(made, b"d", b"d/e", b"d/e/f")
    subprocess.run(["rm", "-r", str(made.source / "d")], check=True)
    tree, scope = scoped(made, (b"d/e/f", False))
    assert scope == [(b"", False), (b"d", True)]
    assert len(tree) == 0


def test_a_place_below_a_vanished_directory_that_nobody_knew_is_nothing(scene: Make) -> None:
    made = scene({"x": b""})
    tree, scope = scoped(made, (b"d/e/f", False))
    assert scope == []
    assert len(tree) == 0


def test_a_directory_that_became_a_file_is_that_place(scene: Make) -> None:
    made = scene({"d": {"x": b""}})
    learn(made, b"d", b"d/x")
    (made.source / "d/x").unlink()
    (made.source / "d").rmdir()
    (made.source / "d").write_bytes(b"now a file")
    tree, scope = scoped(made, (b"d/x", False))
    assert scope == [(b"", False), (b"d", True)]
    assert tree.get(b"d").kind == Kind.FILE


def test_a_missing_place_stays_in_the_scope(scene: Make) -> None:
    made = scene({"d": {}})
    learn(made, b"d")
    _, scope = scoped(made, (b"d/gone", False))
    assert scope == [(b"d", False), (b"d/gone", True)]


def test_scopes_are_sorted_without_repetition(scene: Make) -> None:
    made = scene({"a": {"b": {"c": b""}}, "z": b""})
    learn(made, b"a", b"a/b", b"a/b/c", b"z")
    _, scope = scoped(made, (b"z", False), (b"a/b/c", False), (b"a", True), (b"z", False), (b"a/b", False))
    assert scope == [(b"", False), (b"a", True), (b"z", True)]


def test_excluded_places_leave_the_scope(scene: Make) -> None:
    made = scene({"no": {"x": b""}, "over": {"x": b""}, "yes": b""}, ignore=b"no\n", overlays=[b"over"])
    _, scope = scoped(made, (b"no/x", False), (b"no", True), (b"over/x", False), (b"over", True), (b"yes", False))
    assert scope == [(b"", False), (b"yes", True)]


def test_the_root_looked_at_deeply_is_everything(scene: Make) -> None:
    made = scene({"a": {"b": b""}})
    tree, _ = made.scan([Look(b"", True), Look(b"a", False)])
    assert tree.scope is None
    assert len(tree) == 2


def test_the_target_is_looked_at_as_it_stands(scene: Make) -> None:
    made = scene({"f": b"1"}, {"f": {"held": b"by the container"}, "other": b""})
    _, target = made.scan([Look(b"f", False)])
    assert [path for path, _ in target.rows()] == [b"f", b"f/held"]


def test_a_target_without_the_directory_is_just_empty(scene: Make) -> None:
    made = scene({"d": {"x": b""}}, {"d": Link("/")})
    _, target = made.scan([Look(b"d/x", False)])
    assert target.get(b"d/x") is None
    assert target.troubles == []


# --- mounts -------------------------------------------------------------------------------------------


def test_mount_points_are_crossed_and_their_loss_is_trouble(scene: Make, mounts: Any, kernel: Any) -> None:
    inner = mounts.tmpfs("inner")
    (inner / "x").write_bytes(b"on the mount")
    made = scene({"m": {}, "f": b""})
    mounts.bind(inner, made.source / "m")
    assert made.scan()[0].get(b"m/x") is not None
    learn(made, b"m", mount=True)
    learn(made, b"m/x")
    made.base = kernel.settle(made.base, [(b"m", made.base.get(b"m")._replace(mount=True))], made.journal)
    mounts.unmount(made.source / "m")
    for scope in (None, [Look(b"m", False)], [Look(b"m/x", False)]):
        tree, target = made.scan(scope)
        assert [(t.path, t.errno, t.op) for t in tree.troubles] == [(b"m", errno.ENODEV, "mount")]
        diff = kernel.diff(made.base, tree, target)
        assert b"m/x" not in {row.path for row in made_rows(diff)}


def test_what_is_covered_in_the_target_is_trouble(scene: Make, kernel: Any) -> None:
    """At and below it nothing is looked at, a directory or a single file."""
    made = scene({"m": {"x": b"1", "deep": {"y": b"1"}}, "f": b"1", "g": b"1"})
    made.cycle()
    target = kernel.open_root(os.fsencode(made.target), [b"m", b"f"])
    for scope, places in (
        (None, {b"m", b"f"}),
        ([Look(b"m", False)], {b"m"}),
        ([Look(b"m", True), Look(b"f", False)], {b"m", b"f"}),
        ([Look(b"m/deep/y", False)], {b"m"}),
        ([Look(b"g", False)], set()),
    ):
        source = kernel.scan(made.roots[0], made.rules, Side.SOURCE, made.base, scope, kernel.control())
        seen = kernel.scan(target, made.rules, Side.TARGET, made.base, source, kernel.control())
        assert {(t.path, t.errno, t.op) for t in seen.troubles} == {(path, errno.EBUSY, "mount") for path in places}
        assert not [path for path, _ in seen.rows() if path.split(b"/")[0] in places]
        diff = kernel.diff(made.base, source, seen)
        assert diff.counts()[Line.UNKNOWN] >= len(places)
        assert not diff.rows(Line.LOST)
    target.close()


def made_rows(diff: Any) -> list[Any]:
    return [row for line in (Line.GONE, Line.AGREED, Line.CHANGED) for row in diff.rows(line)]


# --- comparing two scans ------------------------------------------------------------------------------


def test_differing_lists_what_changed_in_order(scene: Make) -> None:
    made = scene({"same": b"", "touched": b"1", "gone": b"", "d": {"x": b""}})
    before, _ = made.scan()
    (made.source / "touched").write_bytes(b"2")
    (made.source / "gone").unlink()
    (made.source / "new").write_bytes(b"")
    after, _ = made.scan()
    assert after.differing(before) == [b"gone", b"new", b"touched"]
    assert before.differing(after) == [b"gone", b"new", b"touched"]
    assert after.differing(after) == []


def test_differing_passes_over_the_unknown(scene: Make, as_user: Any) -> None:
    made = scene({"d": Dir({"x": b"1"}), "f": b""})
    with as_user(made):
        before, _ = made.scan()
    (made.source / "d").chmod(0o000)
    with as_user(made):
        after, _ = made.scan()
    assert after.differing(before) == []
    assert before.differing(after) == []


# --- single looks -------------------------------------------------------------------------------------


@pytest.mark.parametrize("force", [False, True])
def test_stat_many(scene: Make, force: bool) -> None:
    made = scene({"f": b"abc", "d": {"l": Link("f")}})
    tree, _ = made.scan()
    paths = [b"f", b"d/l", b"d", b"", b"nowhere", b"f/x"]
    found = made.kernel.stat_many(made.roots[0], paths, force)
    assert found == [tree.get(path) for path in paths]


def test_rules_and_handles_are_made_by_the_kernel(kernel: Any) -> None:
    rules = kernel.compile_rules([RuleSource("here", b"a/\n")], (), [], [b"over"])
    assert rules.excluded(b"a", True)
    assert not rules.excluded(b"a", False)
    assert rules.excluded(b"over/below", False)
