"""The bodies against each other: random trees, odd names, random edits on both sides; one truth.

Where only the pure body is wanted it is compared with itself: what it does must not hang on chance.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from syncd.kernel.choose import load
from syncd.kernel.contract import Look, Side
from syncd.model.change import Line
from syncd.model.entry import Agreed, Entry, Kind
from tests import strategies as some
from tests import trees
from tests.conformance.scene import KEEP, MIRROR, Scene
from tests.conftest import KERNELS

BODIES = [load(name) for name in ("pure", KERNELS[0])]
EXAMPLES = int(os.environ.get("SYNCD_EXAMPLES", "40"))  # more for long runs
BEGAN = time.time_ns() - 10**9
VERBS = st.sampled_from(["keep", "mirror"]).map({"keep": KEEP, "mirror": MIRROR}.__getitem__)
SETTINGS = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
pytestmark = pytest.mark.timeout(300)

Change = tuple[str, bytes, Any]
Edits = st.lists(some.edits(), max_size=6)


@contextmanager
def twins(source: Any, target: Any, ignore: bytes = b"*.log") -> Iterator[list[Scene]]:
    """The same scene for each body, on trees of its own."""
    top = Path(tempfile.mkdtemp(prefix="syncd-twins-"))
    scenes: list[Scene] = []
    try:
        for number, body in enumerate(BODIES):
            (top / str(number)).mkdir()
            scenes.append(Scene(body, top / str(number), source, target, ignore=ignore))
        yield scenes
    finally:
        for each in scenes:
            each.close()
        shutil.rmtree(top)


def time_like(time: int) -> int | str:
    """A time that a test did not set is each tree's own."""
    return "now" if BEGAN <= time < BEGAN + 10**15 else time


def entry_like(entry: Entry | None) -> Any:
    """What two equal trees have in common: inode, ctime and the times of edits are each one's own."""
    if entry is None:
        return None
    kind, (size, mtime_ns, _, _, mode), digest, link = entry
    return kind, 0 if kind == Kind.DIR else size, time_like(mtime_ns), mode, digest, link


def agreed_like(row: Agreed | None) -> Any:
    if row is None:
        return None
    sides = [entry_like(Entry(row.kind, seen)) for seen in (row.source, row.target)]
    # A directory may be filled after it was recorded, and its mode set last.
    sides = sides[:1] if row.kind == Kind.DIR else sides
    return row.kind, row.mode, time_like(row.mtime_ns), row.digest, row.link, sides, row.shared, row.mount


def what_is_seen(scene: Scene, scope: list[Look] | None) -> Any:
    found = []
    for tree in scene.scan(scope):
        rows = [(path, entry_like(entry)) for path, entry in tree.rows()]
        found.append((rows, tree.scope, tree.others, tree.bytes, len(tree), tree.troubles))
    return found


def what_differs(diff: Any) -> Any:
    lines = {
        line: [
            (row.path, agreed_like(row.base), entry_like(row.source), entry_like(row.target)) for row in diff.rows(line)
        ]
        for line in Line
    }
    counts = [(diff.count(line), diff.bytes(line)) for line in Line]
    return lines, counts, diff.id, diff.unexplained


def what_came_of_it(scene: Scene, outcomes: Any) -> Any:
    counts = outcomes.counts()
    ends = {status: outcomes.paths(status) for status in counts}
    return (
        ends, outcomes.next, outcomes.puts, outcomes.removed, outcomes.bytes, outcomes.stopped,
        outcomes.troubles, sorted(path for path, _ in outcomes.aside), sorted(outcomes.dropped),
        trees.read(scene.target), scene.kept(), [(path, agreed_like(row)) for path, row in scene.base.rows()],
    )  # fmt: skip


def agree(scenes: list[Scene], what: Any, *arguments: Any) -> Any:
    found = [what(each, *arguments) for each in scenes]
    assert found[0] == found[1]
    return found[0]


@SETTINGS
@given(some.trees, some.trees, st.lists(st.tuples(some.paths, st.booleans()), max_size=4))
def test_equal_scans(source: Any, target: Any, places: list[tuple[bytes, bool]]) -> None:
    with twins(source, target) as scenes:
        agree(scenes, what_is_seen, None)
        agree(scenes, what_is_seen, [Look(*place) for place in places])


@SETTINGS
@given(some.trees, Edits, Edits, st.lists(st.tuples(some.paths, st.booleans()), max_size=4), st.booleans(), VERBS)
def test_equal_cycles(
    tree: Any, ours: list[Change], theirs: list[Change], places: list[tuple[bytes, bool]], exact: bool, verbs: Any
) -> None:
    with twins(tree, {}) as scenes:
        for each in scenes:
            each.cycle()
            for change in ours:
                some.edit(each.source, change)
            for change in theirs:
                some.edit(each.target, change)
        for scope in ([Look(*place) for place in places], None, None):
            agree(scenes, what_is_seen, scope)
            diffs = [each.look(scope, {b"a"}, exact) for each in scenes]
            assert what_differs(diffs[0]) == what_differs(diffs[1])
            found = [what_came_of_it(each, each.place(diff, verbs)) for each, diff in zip(scenes, diffs, strict=True)]
            assert found[0] == found[1]
            for each in scenes:
                each.tidy()


@SETTINGS
@given(some.trees, some.trees, VERBS)
def test_equal_first_meetings(source: Any, target: Any, verbs: Any) -> None:
    with twins(source, target) as scenes:
        diffs = [each.look() for each in scenes]
        assert what_differs(diffs[0]) == what_differs(diffs[1])
        found = [what_came_of_it(each, each.place(diff, verbs)) for each, diff in zip(scenes, diffs, strict=True)]
        assert found[0] == found[1]


@SETTINGS
@given(some.trees, Edits, Edits)
def test_a_baseline_of_one_body_is_read_by_the_other(tree: Any, ours: list[Change], theirs: list[Change]) -> None:
    with twins(tree, {}) as scenes:
        for each in scenes:
            each.cycle()
            for change in ours:
                some.edit(each.source, change)
            for change in theirs:
                some.edit(each.target, change)
            each.cycle()
            file = each.journal_path.parent / "empty"
            with file.open("w+b", buffering=0) as empty:
                each.kernel.save_tree(each.kernel.empty_base(), [], empty.fileno())
                read = [body.load_tree([empty.fileno(), each.journal]) for body in BODIES]
            assert [list(found.base.rows()) for found in read] == [list(each.base.rows())] * 2
            assert all(found.whole and not found.intents for found in read)


# --- what holds whatever the edits were ---------------------------------------------------------------


def kept_somewhere(scene: Scene) -> list[bytes]:
    return trees.contents(scene.target) + scene.kept()


@SETTINGS
@given(some.trees, Edits, Edits, st.integers(1, 5))
def test_a_mirror_equals_its_source_and_nothing_of_the_container_is_lost(
    tree: Any, ours: list[Change], theirs: list[Change], size: int
) -> None:
    with twins(tree, {}, ignore=b"") as scenes:
        for each in scenes:
            each.cycle()
            before = trees.contents(each.target)
            for number, change in enumerate(theirs):
                some.edit(each.target, change)
                stamp(each.target, change, number)
            for change in ours:
                some.edit(each.source, change)
            mine = [body for body in trees.contents(each.target) if body not in before]
            for _ in range(3):
                each.place(each.look(), MIRROR, size=size)
            source, _ = each.scan()
            assert without_others(trees.read(each.source)) == trees.read(each.target)
            assert set(mine) <= set(kept_somewhere(each))
            assert [path for path, _ in each.base.rows()] == [
                path for path, entry in source.rows() if entry.kind != Kind.OTHER
            ]
            each.tidy()


def stamp(top: Path, change: Change, number: int) -> None:
    """Give what the container wrote a content that nobody else has."""
    if change[0] in ("put", "rewrite"):
        some.edit(top, ("rewrite", change[1], b"the container's %d" % number))


def without_others(literal: dict[bytes, Any]) -> dict[bytes, Any]:
    return {
        name: without_others(value) if isinstance(value, dict) else value
        for name, value in literal.items()
        if not isinstance(value, trees.Fifo)
    }


@SETTINGS
@given(some.trees, Edits, Edits)
def test_keeping_drift_leaves_what_the_container_wrote(tree: Any, ours: list[Change], theirs: list[Change]) -> None:
    with twins(tree, {}) as scenes:
        for each in scenes:
            each.cycle()
            before = trees.contents(each.target)
            for number, change in enumerate(theirs):
                some.edit(each.target, change)
                stamp(each.target, change, number)
            for change in ours:
                some.edit(each.source, change)
            mine = [body for body in trees.contents(each.target) if body not in before]
            each.cycle()
            each.cycle()
            assert set(mine) <= set(kept_somewhere(each))
            assert Side.SOURCE == 0
