"""Both bodies stay below their roots, whatever links stand or appear there, at every level."""

from __future__ import annotations

import ctypes
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import pytest

from syncd.kernel.contract import Look, Side, Status
from syncd.model.change import Line
from tests import trees
from tests.conformance.conftest import Make
from tests.conformance.scene import KEEP, MIRROR, ends
from tests.trees import F1, F2, F3, Link, build

OUTSIDE: dict[str, Any] = {"a": {"b": {"c": {"f": b"secret", "g": b"secret too"}}}, "b": {"f": b"b"}, "f": b"top"}
LEVELS = ["a", "a/b", "a/b/c", "a/b/c/f"]
TREE: dict[str, Any] = {"a": {"b": {"c": {"f": F1, "g": F1}}}}


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Path]:
    """A directory outside both roots. Nothing in it may be read or written, removed or made."""
    top = tmp_path / "outside"
    build(top, OUTSIDE)
    before = look_at(top)
    yield top
    assert trees.read(top) == trees.as_bytes(OUTSIDE)
    assert look_at(top) == before


def look_at(top: Path) -> dict[str, tuple[int, ...]]:
    found = {}
    for directory, _, names in os.walk(top):
        for name in [directory, *(os.path.join(directory, each) for each in names)]:
            state = os.lstat(name)
            found[name] = (state.st_mode, state.st_mtime_ns, state.st_ctime_ns, state.st_nlink, state.st_uid)
    return found


def link_to_outside(top: Path, level: str, outside: Path) -> None:
    """Put a link in the place of what stands at a level, to what stands there outside."""
    path = top / level
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    elif path.is_symlink() or path.exists():
        path.unlink()
    path.symlink_to(outside / level)


# --- links that stand there ---------------------------------------------------------------------------


@pytest.mark.parametrize("relative", [False, True])
@pytest.mark.parametrize("level", LEVELS)
def test_links_in_the_source_are_mirrored_as_links(scene: Make, outside: Path, level: str, relative: bool) -> None:
    made = scene(TREE)
    made.cycle()
    link_to_outside(made.source, level, outside)
    if relative:
        text = os.path.relpath(outside / level, (made.source / level).parent)
        (made.source / level).unlink()
        (made.source / level).symlink_to(text)
    made.cycle()
    assert made.same_content()
    assert b"secret" not in trees.contents(made.target)
    made.cycle([Look(b"a/b/c/f", True), Look(b"a/b/c/new", False)])
    assert made.quiet()


@pytest.mark.parametrize("verbs", [KEEP, MIRROR], ids=["keep", "mirror"])
@pytest.mark.parametrize("do", ["change", "remove", "touch", "make", "kind"])
@pytest.mark.parametrize("level", LEVELS)
def test_links_in_the_target_lead_nowhere(scene: Make, outside: Path, level: str, do: str, verbs: Any) -> None:
    made = scene(TREE)
    made.cycle()
    link_to_outside(made.target, level, outside)
    change_source(made, do)
    for scope in ([Look(b"a/b/c", True)], None):
        made.cycle(scope, verbs)
    if verbs is MIRROR:
        assert made.same_content()


def change_source(made: Any, do: str) -> None:
    f = made.source / "a/b/c/f"
    if do == "change":
        f.write_bytes(F2)
    elif do == "remove":
        shutil.rmtree(made.source / "a/b/c")
    elif do == "touch":
        os.utime(f, ns=(7, 7))
        f.chmod(0o600)
    elif do == "make":
        build(made.source, {"a": {"b": {"c": {"new": F3, "newd": {"x": F3}}}}})
    else:
        shutil.rmtree(made.source / "a/b/c")
        (made.source / "a/b/c").write_bytes(F3)


@pytest.mark.parametrize("level", ["a", "a/b", "a/b/c"])
def test_single_looks_do_not_follow(scene: Make, outside: Path, level: str) -> None:
    made = scene(TREE)
    link_to_outside(made.source, level, outside)
    assert made.kernel.stat_many(made.roots[0], [b"a/b/c/f", b"a/b/c/g"]) == [None, None]
    hashes = made.kernel.hash_many(made.roots[0], [b"a/b/c/f", b"a/b/c/g"], made.control)
    assert all(isinstance(each, int) for each in hashes)


def test_a_first_meeting_with_a_target_of_links(scene: Make, outside: Path) -> None:
    made = scene(TREE, {"a": Link(str(outside / "a"))})
    made.cycle()
    assert made.same_content()


@pytest.mark.parametrize("level", ["a", "a/b", "a/b/c"])
def test_rule_files_behind_links_are_not_read(scene: Make, outside: Path, level: str) -> None:
    made = scene({"a": {"b": {"c": {}}}, "f": F1}, nested=[b"f"])
    link_to_outside(made.source, level, outside)
    (made.source / "f").unlink()
    (made.source / "f").symlink_to(outside / "f")
    made.cycle()
    assert made.same_content()


# --- a directory replaced by a link between scan and place --------------------------------------------


@pytest.mark.parametrize("verbs", [KEEP, MIRROR], ids=["keep", "mirror"])
@pytest.mark.parametrize("do", ["change", "remove", "touch", "make", "kind"])
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("side", ["source", "target"])
def test_replaced_by_a_link_after_the_scan(
    scene: Make, outside: Path, side: str, level: str, do: str, verbs: Any
) -> None:
    made = scene(TREE)
    made.cycle()
    change_source(made, do)
    diff = made.look(exact=True)
    top = getattr(made, side)
    if (top / level).exists():
        link_to_outside(top, level, outside)
    before = trees.read(made.target)
    outcomes = made.place(diff, verbs)
    assert b"secret" not in trees.contents(made.target) + made.kept()
    if side == "source" and do in ("change", "make") and level != "a/b/c/f":
        assert set(ends(outcomes).values()) <= {Status.VANISHED, Status.SAME}
        assert trees.read(made.target) == before
    made.tidy()
    made.cycle(verbs=MIRROR)
    made.cycle(verbs=MIRROR)
    assert made.same_content()


@pytest.mark.parametrize("level", ["a", "a/b", "a/b/c"])
def test_replaced_by_a_link_between_scan_and_digest(scene: Make, outside: Path, level: str) -> None:
    made = scene({"a": {"b": {"c": {"f": b"secret"}}}}, {"a": {"b": {"c": {"f": b"sEcret"}}}})
    scanned = made.scan()
    link_to_outside(made.target, level, outside)
    _, target = made.kernel.digest(made.base, *scanned, tuple(made.roots), made.control)
    assert target.get(b"a/b/c/f").digest is None


def test_a_staging_name_that_is_a_link_is_not_written_through(scene: Make, outside: Path) -> None:
    made = scene({"f": F1, "big": b"x" * 200_000, "l": Link("f")})
    for number in range(6):
        for prefix in ("new", "old"):
            (made.staging / f"{prefix}-{number}").symlink_to(outside / "f")
    made.cycle()
    (made.source / "f").write_bytes(F2)
    made.cycle(write="replace")
    assert made.same_content()


def test_a_set_aside_directory_that_is_a_link_is_not_followed(scene: Make, outside: Path) -> None:
    made = scene({"d": {"f": F1}}, {"d": {"f": F2}})
    (made.staging / "conflicts").symlink_to(outside)
    outcomes = made.cycle()
    assert made.same_content() or ends(outcomes)[b"d/f"] == Status.FAILED
    assert F2 in trees.contents(made.target) + made.kept()


# --- races --------------------------------------------------------------------------------------------

RENAME_EXCHANGE = 2
libc = ctypes.CDLL(None, use_errno=True)


class Swapper(threading.Thread):
    """Exchanges two names as fast as it can."""

    def __init__(self, one: Path, other: Path) -> None:
        super().__init__(daemon=True)
        self.names = os.fsencode(one), os.fsencode(other)
        self.over = False

    def run(self) -> None:
        while not self.over:
            libc.renameat2(-100, self.names[0], -100, self.names[1], RENAME_EXCHANGE)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over = True
        self.join()


def repeat(times: int, step: Callable[[int], None]) -> None:
    for number in range(times):
        step(number)


@pytest.mark.parametrize("side", ["source", "target"])
def test_a_directory_exchanged_with_a_link_all_the_time(scene: Make, outside: Path, side: str) -> None:
    made = scene({"a": {"b": {"f": F1, "g": F1}}})
    made.cycle()
    top = getattr(made, side)
    (made.source.parent / "trap").symlink_to(outside / "a")

    def step(number: int) -> None:
        (made.source / "a/b/f" if side == "target" else made.source / "top").write_bytes(b"%d" % number)
        made.cycle([Look(b"a/b", True), Look(b"top", False)], MIRROR, write="replace" if number % 2 else "auto")
        made.cycle(None, MIRROR)

    with Swapper(top / "a", made.source.parent / "trap"):
        try:
            if side == "source":
                repeat(15, step)
            else:
                for number in range(15):
                    (made.source / "a/b/f").write_bytes(b"%d" % number)
                    made.cycle(None, MIRROR)
        except FileNotFoundError:
            pass  # the test's own write met the link
    assert b"secret" not in trees.contents(made.target)
    if not (top / "a").is_symlink():
        return
    libc.renameat2(-100, os.fsencode(top / "a"), -100, os.fsencode(made.source.parent / "trap"), RENAME_EXCHANGE)


def test_lines_of_a_scan_under_exchange_never_show_the_outside(scene: Make, outside: Path) -> None:
    made = scene({"a": {"b": {"mine": F1}}})
    (made.source.parent / "trap").symlink_to(outside / "a")
    with Swapper(made.source / "a", made.source.parent / "trap"):
        for _ in range(100):
            tree = made.kernel.scan(made.roots[0], made.rules, Side.SOURCE, made.base, None, made.control)
            paths = {path for path, _ in tree.rows()}
            assert paths <= {b"a", b"a/b", b"a/b/mine"}
            places = [Look(b"a/b/c/f", True), Look(b"a/b/c", True)]
            tree = made.kernel.scan(made.roots[0], made.rules, Side.SOURCE, made.base, places, made.control)
            assert tree.get(b"a/b/c/f") is None
            diff = made.kernel.diff(made.base, tree, tree)
            assert diff.count(Line.GONE) == 0
