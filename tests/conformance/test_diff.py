"""Diff, in both bodies: the table, a row for each line × kind, and what counts and orders its lines."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from syncd.kernel.contract import Look, Side
from syncd.model.change import Line
from syncd.model.entry import Fingerprint, Kind
from syncd.model.plan import Verb
from tests.conformance.conftest import Make
from tests.conformance.scene import KEEP, MIRROR
from tests.trees import D0, D1, F1, F2, KINDS, L1, NO, O1, Dir, File, Link, build

# What baseline, source and target hold, each by its number among three unlike entries of one sort.
A, B, C = 0, 1, 2
TABLE = [
    # base, source, target, line
    (A, A, A, Line.SAME),
    (NO, A, A, Line.AGREED),
    (A, B, B, Line.AGREED),
    (A, NO, NO, Line.AGREED),
    (A, B, A, Line.CHANGED),
    (NO, A, NO, Line.CHANGED),
    (A, NO, A, Line.GONE),
    (A, A, NO, Line.LOST),
    (A, A, B, Line.EDITED),
    (NO, NO, A, Line.MADE),
    (A, B, C, Line.CONFLICT),
    (A, NO, B, Line.CONFLICT),
    (A, B, NO, Line.CONFLICT),
    (NO, A, B, Line.CONFLICT),
]


def make_row(make: Make, base: Any, source: Any, target: Any) -> Any:
    """A scene in which the path `p` holds these three."""
    held = {"p": base} if base is not NO else {}
    made = make(held, held)
    made.cycle()
    for top, value, was in ((made.source, source, base), (made.target, target, base)):
        if value == was:
            continue
        if was is not NO:
            remove(top / "p")
        if value is not NO:
            build(top, {"p": value})
    return made


def remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


@pytest.mark.parametrize("kinds", KINDS)
@pytest.mark.parametrize(("base", "source", "target", "line"), TABLE)
def test_the_table(scene: Make, kinds: str, base: Any, source: Any, target: Any, line: Line) -> None:
    entries = [NO if each is NO else KINDS[kinds][each] for each in (base, source, target)]
    made = make_row(scene, *entries)
    diff = made.look()
    counts = {each: diff.count(each) for each in Line if diff.count(each)}
    assert counts == {line: 1}
    if line is not Line.SAME:
        (row,) = diff.rows(line)
        assert row.path == b"p"
        kinds_seen = [None if each is None else each.kind for each in row[1:]]
        assert kinds_seen == [kind_of(each) for each in entries]


def kind_of(value: Any) -> Kind | None:
    if value is NO:
        return None
    if isinstance(value, dict):
        return Kind.DIR
    return Kind.LINK if isinstance(value, Link) else Kind.FILE


@pytest.mark.parametrize(
    ("base", "source", "target", "line"),
    [
        (NO, O1, NO, None),
        (NO, O1, F1, Line.MADE),
        (F1, O1, F1, Line.GONE),
        (F1, O1, F2, Line.CONFLICT),
        (F1, O1, NO, Line.AGREED),
        (NO, NO, O1, Line.MADE),
        (NO, F1, O1, Line.CONFLICT),
        (F1, F1, O1, Line.EDITED),
        (F1, NO, O1, Line.CONFLICT),
        (NO, O1, O1, Line.MADE),
    ],
)
def test_an_other_is_missing_in_the_source_and_unlike_anything_in_the_target(
    scene: Make, base: Any, source: Any, target: Any, line: Line | None
) -> None:
    diff = make_row(scene, base, source, target).look()
    assert {each: diff.count(each) for each in Line if diff.count(each)} == ({line: 1} if line else {})


def test_a_subtree_is_sorted_path_by_path(scene: Make) -> None:
    made = scene({"d": {"same": F1, "mine": F1, "gone": F1}}, {})
    made.cycle()
    (made.source / "d/gone").unlink()
    (made.source / "d/mine").write_bytes(F2)
    (made.target / "d/made").write_bytes(F2)
    found = made.lines(made.look())
    assert found == {
        Line.AGREED: [b"d"],  # its own time is another
        Line.CHANGED: [b"d/mine"],
        Line.GONE: [b"d/gone"],
        Line.MADE: [b"d/made"],
    }


# --- same, or something to learn ----------------------------------------------------------------------


def touch(path: Path) -> None:
    os.utime(path, ns=(5, 5))


LEARN = [
    ("source's mtime", lambda made: touch(made.source / "p"), Line.AGREED),
    ("target's mtime", lambda made: touch(made.target / "p"), Line.AGREED),
    ("source's mode", lambda made: (made.source / "p").chmod(0o600), Line.AGREED),
    ("target's mode", lambda made: (made.target / "p").chmod(0o600), Line.AGREED),
    ("nothing", lambda _made: None, Line.SAME),
]


@pytest.mark.parametrize(("what", "do", "line"), LEARN)
def test_a_file_agrees_until_both_fingerprints_are_known(scene: Make, what: str, do: Any, line: Line) -> None:
    made = scene({"p": F1})
    made.cycle()
    do(made)
    diff = made.look(exact=True)
    assert diff.count(line) == 1


def test_of_a_target_directory_only_the_permission_bits_count(scene: Make) -> None:
    made = scene({"p": {}})
    made.cycle()
    (made.target / "p/made").write_bytes(F1)
    assert made.look().count(Line.SAME) == 1
    (made.target / "p").chmod(0o700)
    assert made.look().count(Line.AGREED) == 1


def test_a_source_directory_counts_by_its_fingerprint(scene: Make) -> None:
    made = scene({"p": {}})
    made.cycle()
    touch(made.source / "p")
    assert made.look().count(Line.AGREED) == 1


def test_a_file_in_doubt_equals_nothing(scene: Make) -> None:
    made = scene({"p": F1}, {"p": F1})
    source, target = made.scan()
    diff = made.kernel.diff(made.base, source, target)
    assert made.lines(diff) == {Line.CONFLICT: [b"p"]}


# --- unknown ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", list(Side))
def test_unknown_here_or_above_is_unknown(scene: Make, as_user: Any, side: Side) -> None:
    made = scene({"d": {"x": F1, "e": {"y": F1}}, "f": F1})
    made.cycle()
    (made.source, made.target)[side].joinpath("d").chmod(0o000)
    with as_user(made):
        diff = made.look()
    assert [row.path for row in diff.rows(Line.UNKNOWN)] == [b"d", b"d/e", b"d/e/y", b"d/x"]
    assert diff.count(Line.GONE) == diff.count(Line.LOST) == 0


def test_an_unreadable_file_is_unknown(scene: Make, as_user: Any) -> None:
    made = scene({"p": F1}, {"p": File(F1, 0o000)})
    with as_user(made):
        diff = made.look()
    assert made.lines(diff) == {Line.UNKNOWN: [b"p"]}


@pytest.mark.parametrize("mode", [0o000, 0o444])
def test_a_directory_that_holds_something_unknown_is_not_gone(scene: Make, as_user: Any, mode: int) -> None:
    made = scene({"a": {"b": {"x": F1}, "c": F1}, "a.b": F1})
    made.cycle()
    shutil.rmtree(made.source / "a")
    (made.source / "a.b").unlink()
    (made.target / "a" / "b").chmod(mode)
    with as_user(made):
        diff = made.look()
        assert [row.path for row in diff.rows(Line.GONE)] == [b"a/c", b"a.b"]
        assert [row.path for row in diff.rows(Line.UNKNOWN)] == [b"a", b"a/b", b"a/b/x"]
        made.cycle()
    assert not (made.target / "a" / "c").exists()
    (made.target / "a" / "b").chmod(0o755)
    with as_user(made):
        made.cycle()
    assert not (made.target / "a").exists(), "what syncd wrote is not taken for the container's"


# --- scope --------------------------------------------------------------------------------------------


def test_only_the_scope_is_sorted(scene: Make) -> None:
    made = scene({"a": F1, "b": F1, "d": {"x": F1}})
    made.cycle()
    for name in ("a", "b", "d/x"):
        (made.source / name).write_bytes(F2)
        (made.target / name).write_bytes(b"container's")
    assert made.lines(made.look([Look(b"a", False)])) == {Line.CONFLICT: [b"a"]}
    assert made.lines(made.look([Look(b"d", True)])) == {Line.CONFLICT: [b"d/x"]}
    assert made.lines(made.look([])) == {}


def test_a_vanished_directory_takes_its_rows_into_scope(scene: Make) -> None:
    made = scene({"d": {"x": F1, "e": {}}})
    made.cycle()
    shutil.rmtree(made.source / "d")
    diff = made.look([Look(b"d/x", False)])
    assert [row.path for row in diff.rows(Line.GONE)] == [b"d", b"d/e", b"d/x"]


# --- counts -------------------------------------------------------------------------------------------


def test_bytes_and_slices_of_a_line(scene: Make) -> None:
    made = scene({"a": b"1", "b": b"22", "c": b"333", "d": {}})
    diff = made.look()
    assert diff.bytes(Line.CHANGED) == 6
    assert [row.path for row in diff.rows(Line.CHANGED, 1, 3)] == [b"b", b"c"]
    assert [row.path for row in diff.rows(Line.CHANGED, 2)] == [b"c", b"d"]
    made.place(diff)
    (made.source / "c").unlink()
    diff = made.look()
    assert diff.bytes(Line.GONE) == 3
    assert diff.rows(Line.SAME) == []


def test_the_id_names_a_set_of_removals(scene: Make) -> None:
    made = scene({"a": F1, "b": F1, "c": F1})
    made.cycle()
    assert made.look().id == ""
    (made.source / "a").unlink()
    one = made.look().id
    assert one
    assert one == made.look().id
    (made.source / "b").unlink()
    two = made.look().id
    assert two != one
    build(made.source, {"a": F1})
    assert made.look().id not in (one, two, "")


# --- explained removals -------------------------------------------------------------------------------


def gone(make: Make) -> Any:
    """A scene whose source lost d/e/x, while the directories' times were put back."""
    made = make({"d": {"e": {"x": F1, "y": F1}}})
    made.cycle()
    before = os.stat(made.source / "d/e")
    (made.source / "d/e/x").unlink()
    os.utime(made.source / "d/e", ns=(before.st_atime_ns, before.st_mtime_ns))
    return made


def test_a_removal_without_a_trace_is_unexplained(scene: Make) -> None:
    diff = gone(scene).look()
    assert (diff.count(Line.GONE), diff.unexplained) == (1, 1)


@pytest.mark.parametrize("word", [b"d/e/x", b"d/e", b"d"])
def test_a_word_on_it_or_above_explains(scene: Make, word: bytes) -> None:
    assert gone(scene).look(removed={word}).unexplained == 0


def test_a_word_on_another_path_explains_nothing(scene: Make) -> None:
    assert gone(scene).look(removed={b"d/e/y", b"d/e/x/z", b"other"}).unexplained == 1


def test_everything_can_be_called_explained(scene: Make) -> None:
    made = gone(scene)
    source, target = made.scan()
    assert made.kernel.diff(made.base, source, target, (), True).unexplained == 0


def test_another_time_of_the_nearest_directory_explains(scene: Make) -> None:
    made = gone(scene)
    os.utime(made.source / "d/e", ns=(7, 7))
    assert made.look().unexplained == 0
    assert made.look([Look(b"d/e/x", False)]).unexplained == 0


def test_another_directory_with_another_time_explains_nothing(scene: Make) -> None:
    made = gone(scene)
    os.rename(made.source / "d/e", made.source / "moved")
    shutil.copytree(made.source / "moved", made.source / "d/e")
    shutil.rmtree(made.source / "moved")
    diff = made.look()
    assert diff.rows(Line.GONE)[0].path == b"d/e/x"
    assert diff.unexplained == 1


def test_a_whole_directory_is_explained_by_the_one_above_that_is_left(scene: Make) -> None:
    made = scene({"d": {"e": {"f": {"x": F1}}}})
    made.cycle()
    shutil.rmtree(made.source / "d/e")
    diff = made.look()
    assert (diff.count(Line.GONE), diff.unexplained) == (3, 0)
    assert made.look([Look(b"d/e/f/x", False)]).unexplained == 0


def test_the_root_explains_only_when_the_baseline_knows_its_times(scene: Make) -> None:
    made = scene({"a": F1})
    made.cycle()
    root = made.scan()[0].get(b"")
    assert root is not None
    (made.source / "a").unlink()
    assert made.look().unexplained == 1
    row = made.base.get(b"a")._replace(kind=Kind.DIR, digest=None, source=root.seen)
    made.base = made.kernel.settle(made.base, [(b"", row)], made.journal)
    assert len(made.base) == 1
    assert made.look().unexplained == 0
    made.base = made.kernel.settle(made.base, [(b"", row._replace(source=made.scan()[0].get(b"").seen))], made.journal)
    assert made.look().unexplained == 1


# --- the order of actions, told by how they end -------------------------------------------------------


def test_actions_go_directories_rest_removals(scene: Make) -> None:
    made = scene({"old": {"sub": {"x": F1}}, "z": F1})
    made.cycle()
    shutil.rmtree(made.source / "old")
    build(made.source, {"new": {"deep": {"y": F1}}, "a": F1, "z2": {}, "z": F2})
    diff = made.look()
    actions = diff.actions(KEEP)
    assert len(actions) == 9
    ended = []
    for index in range(len(actions)):
        outcomes = made.kernel.place(
            *made.roots, made.rules, made.base, actions, index, index + 1, made.options(), made.control
        )
        made.base = made.kernel.patch(made.base, outcomes)
        assert outcomes.next == index + 1
        ended += [path for status in outcomes.counts() for path in outcomes.paths(status)]
    assert ended[:3] == [b"new", b"new/deep", b"z2"]
    assert ended[3:6] == [b"a", b"new/deep/y", b"z"]
    assert ended[6:] == [b"old/sub/x", b"old/sub", b"old"]
    assert made.quiet()


def test_a_verb_of_leave_makes_no_action(scene: Make) -> None:
    made = scene({"a": F1}, {"b": F1})
    diff = made.look()
    assert len(diff.actions({})) == 0
    assert len(diff.actions({Line.CHANGED: Verb.LEAVE})) == 0
    assert len(diff.actions(KEEP)) == 1
    assert len(diff.actions(MIRROR)) == 2


def test_diff_does_not_touch_its_trees(scene: Make) -> None:
    made = scene({"a": F1, "l": L1, "d": D1, "e": D0}, {"d": Dir({}, 0o700)})
    source, target = made.scan()
    before = list(source.rows()), list(target.rows())
    made.kernel.diff(made.base, source, target)
    made.kernel.digest(made.base, source, target, tuple(made.roots), made.control)
    assert (list(source.rows()), list(target.rows())) == before
    assert all(isinstance(entry.seen, Fingerprint) for _, entry in before[0])
