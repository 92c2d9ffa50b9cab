"""Place, in both bodies: an entry becomes one of another kind, and nothing in it is lost."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from syncd.kernel.contract import Look, RuleSource, Status
from syncd.model.change import Line
from tests import trees
from tests.conformance.conftest import Make
from tests.conformance.scene import KEEP, MIRROR, ends, kept_path
from tests.trees import F1, F2, F3, Dir, Fifo, File, Link, build

KINDS: dict[str, Any] = {
    "file": F1,
    "big": b"x" * 200_000,
    "link": Link("x"),
    "empty": {},
    "full": {"f": F1, "l": Link("f"), "d": {"deep": F2}, "e": {}},
}
CHANGES = [
    (old, new) for old in KINDS for new in KINDS if old != new and {old, new} != {"empty", "full"}
]  # fmt: skip


def become(top: Path, value: Any) -> None:
    path = top / "p"
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    elif os.path.lexists(path):
        path.unlink()
    build(top, {"p": value})


@pytest.mark.parametrize("direct", [False, True])
@pytest.mark.parametrize(("old", "new"), CHANGES)
def test_every_kind_becomes_every_other(scene: Make, old: str, new: str, direct: bool) -> None:
    made = scene({"p": KINDS[old], "other": F3})
    made.cycle()
    become(made.source, KINDS[new])
    outcomes = made.cycle(direct=direct)
    assert set(outcomes.counts()) <= {Status.DONE, Status.SAME}
    assert made.same_content()
    assert outcomes.aside == []
    assert made.kept() == []
    assert made.quiet()
    assert [path for path, _ in made.base.rows()] == [path for path, _ in made.scan()[0].rows()]


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize(("old", "new"), CHANGES)
def test_in_slices_too(scene: Make, old: str, new: str, size: int) -> None:
    made = scene({"p": KINDS[old], "other": F3})
    made.cycle()
    become(made.source, KINDS[new])
    made.place(made.look(), size=size)
    assert made.same_content()
    assert made.kept() == []
    assert made.quiet()


@pytest.mark.parametrize(("old", "new"), CHANGES)
def test_partly_looked_at(scene: Make, old: str, new: str) -> None:
    made = scene({"p": KINDS[old]})
    made.cycle()
    become(made.source, KINDS[new])
    made.cycle([Look(b"p", False)])
    assert made.same_content()
    made.cycle()
    assert made.quiet()


EXTRAS: dict[str, Any] = {
    "made": {"mine": b"the container's"},
    "made below": {"d": {"mine": b"the container's"}},
    "made directory": {"mine": {"deep": {"x": b"the container's"}}},
    "edited": {"f": b"the container's"},
    "edited below": {"d": {"deep": b"the container's"}},
    "ignored": {"x.log": b"the container's"},
    "ignored below": {"d": {"x.log": b"the container's"}},
}


@pytest.mark.parametrize("verbs", [KEEP, MIRROR], ids=["keep", "mirror"])
@pytest.mark.parametrize("new", ["file", "big", "link"])
@pytest.mark.parametrize("extra", EXTRAS)
def test_what_the_container_put_into_a_directory_is_kept(scene: Make, extra: str, new: str, verbs: Any) -> None:
    made = scene({"p": KINDS["full"]}, ignore=b"*.log")
    made.cycle()
    build(made.target, {"p": EXTRAS[extra]})
    become(made.source, KINDS[new])
    outcomes = made.cycle(verbs=verbs)
    assert made.same_content()
    assert made.kept() == [b"the container's"]  # and nothing of the baseline's
    kept = kept_path(outcomes, b"p")
    found = trees.read(os.fsencode(made.staging) + b"/" + kept)
    assert found == trees.as_bytes(EXTRAS[extra])
    assert made.quiet()


def test_links_and_others_of_the_container_are_kept(scene: Make) -> None:
    made = scene({"p": KINDS["full"]})
    made.cycle()
    build(made.target, {"p": {"out": Link("/"), "pipe": Fifo(), "empty": {}}})
    (made.target / "p/l").unlink()
    (made.target / "p/l").symlink_to("elsewhere")
    become(made.source, F3)
    outcomes = made.cycle()
    found = trees.read(os.fsencode(made.staging) + b"/" + kept_path(outcomes, b"p"))
    assert found == trees.as_bytes({"empty": {}, "l": Link("elsewhere"), "out": Link("/"), "pipe": Fifo()})


def test_a_touched_file_of_the_baseline_is_dropped_all_the_same(scene: Make) -> None:
    made = scene({"p": {"f": F1}})
    made.cycle()
    os.utime(made.target / "p/f", ns=(1, 1))
    (made.target / "p/f").chmod(0o600)
    become(made.source, F3)
    assert made.cycle().aside == []
    assert made.kept() == []


@pytest.mark.parametrize("new", ["empty", "full"])
@pytest.mark.parametrize("held", [b"edited", Link("edited"), Fifo()], ids=str)
def test_an_edited_file_in_the_place_of_a_directory_is_kept(scene: Make, held: Any, new: str) -> None:
    made = scene({"p": F1})
    made.cycle()
    (made.target / "p").unlink()
    build(made.target, {"p": held})
    become(made.source, KINDS[new])
    outcomes = made.cycle()
    assert made.same_content()
    kept = kept_path(outcomes, b"p")
    found = trees.read(os.fsencode(made.staging) + b"/" + os.path.dirname(kept))
    assert found == {os.path.basename(kept): held}
    assert made.quiet()


@pytest.mark.parametrize("overlay", [b"p", b"p/over", b"p/d/over"])
@pytest.mark.parametrize("new", ["file", "link", "big"])
def test_a_directory_with_an_overlay_stays(scene: Make, overlay: bytes, new: str) -> None:
    made = scene({"p": KINDS["full"], "other": F1})
    made.cycle()
    become(made.source, KINDS[new])
    (made.source / "other").write_bytes(F2)
    made.rules = made.kernel.compile_rules([], (), [], [overlay])
    diff = made.look()
    before = trees.read(made.target)[b"p"]
    outcomes = made.place(diff)
    if overlay == b"p":
        assert ends(outcomes)[b"p"] == Status.SAME
        assert [path for path, _ in made.base.rows()] == [b"other"]
        assert trees.read(made.target)[b"p"] == before
    else:
        assert ends(outcomes)[b"p"] == Status.FAILED
        assert [(t.path, t.errno, t.op) for t in outcomes.troubles] == [(b"p", errno.EBUSY, "overlay")]
    assert (made.target / "p").is_dir()
    assert outcomes.aside == []
    assert (made.target / "other").read_bytes() == F2
    kept = trees.read(made.target)[b"p"]
    assert all(key in before for key in kept)


@pytest.mark.parametrize("held", [F2, Link("edited"), {"mine": F2}], ids=str)
def test_a_newly_ignored_path_leaves_the_baseline_and_stays_where_it_is(scene: Make, held: Any) -> None:
    made = scene({"d": {"p": F1}, "q": {"x": F1}})
    made.cycle()
    become(made.target / "d", held)
    made.rules = made.kernel.compile_rules([RuleSource("rules", b"p\n/q/\n")], (), [], ())
    before = trees.read(made.target)
    outcomes = made.cycle(verbs=MIRROR)
    assert set(outcomes.counts()) <= {Status.SAME}
    assert trees.read(made.target) == before
    assert [path for path, _ in made.base.rows()] == [b"d"]
    made.rules = made.kernel.compile_rules([], (), [], ())
    assert set(made.lines(made.look())) <= {Line.CONFLICT, Line.AGREED, Line.MADE}


def test_a_conflict_with_an_overlay_below_stays(scene: Make) -> None:
    made = scene({"p": F1}, overlays=[b"p/over"])
    made.cycle()
    become(made.target, {"over": {"cache": F2}, "x": F3})
    (made.source / "p").write_bytes(F2)
    outcomes = made.cycle(verbs=MIRROR)
    assert ends(outcomes)[b"p"] == Status.FAILED
    assert outcomes.troubles[0].op == "overlay"
    assert trees.read(made.target)[b"p"][b"over"] == {b"cache": F2}


def test_an_overlay_that_is_mounted_in_the_target_is_not_looked_into(scene: Make, mounts: Any) -> None:
    made = scene({"d": {"f": F1}}, overlays=[b"d/over"])
    made.cycle()
    cache = mounts.tmpfs("cache")
    (cache / "x").write_bytes(F2)
    (made.target / "d/over").mkdir()
    mounts.bind(cache, made.target / "d/over")
    shutil.rmtree(made.source / "d")
    outcomes = made.cycle(verbs=MIRROR)
    assert ends(outcomes)[b"d"] == Status.KEPT
    assert (cache / "x").read_bytes() == F2


def test_a_failed_put_gives_the_old_entry_its_name_back(scene: Make, mounts: Any) -> None:
    target_mount = mounts.tmpfs("small", "256k")
    made = scene({"p": {"f": F1}}, other_mount=target_mount)
    made.cycle()
    fill(target_mount)
    become(made.source, b"x" * 200_000)
    outcomes = made.cycle()
    assert outcomes.stopped == errno.ENOSPC
    (target_mount / "filler").unlink()
    made.cycle()
    assert made.same_content()
    assert made.quiet()


def fill(mount: Path) -> None:
    with open(mount / "filler", "wb", buffering=0) as file:
        try:
            while file.write(bytes(4096)):
                pass
        except OSError:
            pass


def test_the_changed_line_counts_for_the_old_kinds_rows(scene: Make) -> None:
    made = scene({"p": KINDS["full"]})
    made.cycle()
    become(made.source, F3)
    diff = made.look()
    assert made.lines(diff)[Line.CHANGED] == [b"p"]
    assert [row.path for row in diff.rows(Line.GONE)] == [b"p/d", b"p/d/deep", b"p/e", b"p/f", b"p/l"]


@pytest.mark.skipif(os.geteuid() != 0, reason="the test has to be two users")
def test_a_directory_that_forbids_writing_becomes_a_file(scene: Make, as_user: Any) -> None:
    made = scene({"q": {"p": Dir({"d": Dir({"f": F1}, 0o500), "f": File(F1, 0o444)}, 0o755)}})
    with as_user(made):
        made.cycle()
    shutil.rmtree(made.source / "q/p")
    build(made.source, {"q": {"p": F3}})
    with as_user(made):
        outcomes = made.cycle()
    assert Status.FAILED not in outcomes.counts()
    assert made.same_content()
    assert made.kept() == []


@pytest.mark.parametrize("size", [1, 2000])
def test_a_directory_keeps_its_row_while_something_of_ours_is_left_in_it(scene: Make, size: int) -> None:
    """Else what could not be removed would be taken for the container's, and stay for ever."""
    made = scene({"d": {"e": {"f": F1, "g": F1}}})
    made.cycle()
    shutil.rmtree(made.source / "d")
    diff = made.look()
    (made.target / "d/e/f").write_bytes(b"changed after the look")
    made.place(diff, size=size)
    assert [path for path, _ in made.base.rows()] == [b"d", b"d/e", b"d/e/f"]
    (made.target / "d/e/f").write_bytes(F1)
    made.cycle()
    assert not (made.target / "d").exists()
    assert made.kept() == []
