"""Express, in both bodies: a lone save in one call, and nothing at all where there is anything to decide."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from syncd.kernel.contract import Outcomes, Status
from syncd.model.entry import Agreed, Kind
from tests import trees
from tests.conformance.conftest import Make
from tests.conformance.scene import KEEP, MIRROR, Scene, ends
from tests.trees import F1, F2, Dir, Fifo, File, Link

START = {"a": F1, "run": File(b"#!", 0o755), "d": {"b": F1, "c": F2, "l": Link("b"), "e": Dir({})}}


def express(made: Scene, *paths: bytes, deep: bool = False, verbs: Any = KEEP, **options: Any) -> Outcomes | None:
    """Mirror some paths. A calm batch is learnt, as the engine does."""
    source, target = made.roots
    outcomes = made.kernel.express(
        (os.fsencode(made.source), os.fsencode(made.target)),
        ((source.device, source.inode), (target.device, target.inode)),
        made.rules, made.base, paths, paths if deep else (), verbs, made.options(**options), made.control,
    )  # fmt: skip
    if outcomes is not None:
        made.base = made.kernel.patch(made.base, outcomes)
    return outcomes


def mirrored(scene: Make) -> Scene:
    made = scene(START)
    made.cycle()
    assert made.quiet()
    learn_root(made)
    return made


def learn_root(made: Scene) -> None:
    """As the engine does after a cycle that left nothing undone."""
    root = made.scan()[0].get(b"").seen
    row = Agreed(Kind.DIR, 0o755, root.mtime_ns, None, None, root, root)
    made.base = made.kernel.settle(made.base, [(b"", row)], made.journal)


def state(made: Scene) -> tuple[Any, ...]:
    """Everything that a call could have touched."""
    here = [made.target, *sorted(made.target.rglob("*"))]
    rows = dict(made.base.rows())
    return [os.lstat(path).st_ctime_ns for path in here], trees.read(made.target), made.journal_path.read_bytes(), rows


SAVES: dict[str, tuple[Callable[[Path], object], list[bytes], int]] = {
    "in place": (lambda top: (top / "a").write_bytes(b"longer than before"), [b"a"], 1),
    "shorter": (lambda top: (top / "d/b").write_bytes(b""), [b"d/b"], 1),
    "new": (lambda top: (top / "d/new").write_bytes(b"new"), [b"d/new"], 1),
    "large": (lambda top: (top / "d/new").write_bytes(b"x" * 300_000), [b"d/new"], 1),
    "by rename": (lambda top: ((top / "d/t").write_bytes(b"other"), (top / "d/t").rename(top / "d/b")), [b"d/b"], 1),
    "mode": (lambda top: (top / "run").chmod(0o700), [b"run"], 0),
    "touched": (lambda top: os.utime(top / "a", ns=(1, 1)), [b"a"], 0),
    "link": (lambda top: ((top / "d/l").unlink(), (top / "d/l").symlink_to("c")), [b"d/l"], 1),
    "directory": (lambda top: ((top / "d/n").mkdir(), (top / "d/n/f").write_bytes(b"f")), [b"d/n"], 2),
    "two": (lambda top: ((top / "a").write_bytes(b"1"), (top / "d/c").write_bytes(b"2")), [b"a", b"d/c"], 2),
    "nothing": (lambda top: None, [b"a", b"d/b"], 0),
    "never there": (lambda top: None, [b"x/y", b"z"], 0),
}


@pytest.mark.parametrize("name", SAVES)
def test_a_lone_save_arrives(scene: Make, name: str) -> None:
    made = mirrored(scene)
    save, paths, puts = SAVES[name]
    save(made.source)
    outcomes = express(made, *paths)
    assert outcomes is not None
    assert outcomes.puts == puts
    assert set(ends(outcomes).values()) <= {Status.DONE, Status.SAME}
    assert (outcomes.troubles, outcomes.aside, outcomes.stopped) == ([], [], 0)
    assert made.same_content()
    assert made.quiet()
    loaded = made.load()
    assert (loaded.whole, loaded.intents) == (True, [])
    assert dict(loaded.base.rows()) == dict(made.base.rows())


DECISIONS: dict[str, tuple[Callable[[Path, Path], object], list[bytes]]] = {
    "removed": (lambda source, target: (source / "d/b").unlink(), [b"d/b"]),
    "removed directory": (lambda source, target: (source / "d/e").rmdir(), [b"d/e"]),
    "the root's own times": (lambda source, target: (source / "n").write_bytes(b"new"), [b"n"]),
    "removed by the container": (lambda source, target: (target / "d/b").unlink(), [b"d/b"]),
    "edited by the container": (lambda source, target: (target / "a").write_bytes(b"theirs"), [b"a"]),
    "made by the container": (lambda source, target: (target / "d/mine").write_bytes(b"theirs"), [b"d/mine"]),
    "conflict": (
        lambda source, target: ((source / "a").write_bytes(b"ours"), (target / "a").write_bytes(b"theirs")),
        [b"a"],
    ),
    "both made": (
        lambda source, target: ((source / "d/n").write_bytes(b"ours"), (target / "d/n").write_bytes(b"theirs")),
        [b"d/n"],
    ),
    "another kind": (
        lambda source, target: ((source / "d/b").write_bytes(b"ours"), (target / "d/b").unlink(), (target / "d/b").mkdir()),
        [b"d/b"],
    ),
    "a fifo": (lambda source, target: os.mkfifo(source / "d/pipe"), [b"d/pipe"]),
    "a fifo of the container": (lambda source, target: os.mkfifo(target / "d/pipe"), [b"d/pipe"]),
    "one of two": (
        lambda source, target: ((source / "a").write_bytes(b"ours"), (target / "d/c").write_bytes(b"theirs")),
        [b"a", b"d/c"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("verbs", [KEEP, MIRROR], ids=["keep", "mirror"])
@pytest.mark.parametrize("name", DECISIONS)
def test_where_there_is_anything_to_decide_nothing_is_touched(scene: Make, name: str, verbs: Any) -> None:
    made = mirrored(scene)
    act, paths = DECISIONS[name]
    act(made.source, made.target)
    before = state(made)
    assert express(made, *paths, verbs=verbs) is None
    assert state(made) == before
    made.tidy()


@pytest.mark.parametrize("which", ["source", "target"])
def test_another_root_is_not_touched(scene: Make, which: str) -> None:
    made = mirrored(scene)
    (made.source / "a").write_bytes(b"changed")
    top: Path = getattr(made, which)
    top.rename(top.with_name("away"))
    assert express(made, b"a") is None
    trees.build(top, {"a": b"another"})
    before = trees.read(top)
    assert express(made, b"a") is None
    assert trees.read(top) == before
    old = made.target if which == "source" else top.with_name("away")
    assert (old / "a").read_bytes() == F1


def test_a_link_on_the_way_is_not_followed(scene: Make, tmp_path: Path) -> None:
    made = mirrored(scene)
    trees.build(tmp_path / "outside", {"b": b"outside"})
    (made.source / "d/b").write_bytes(b"changed")
    (made.target / "d").rename(made.target / "moved")
    (made.target / "d").symlink_to(tmp_path / "outside")
    assert express(made, b"d/b") is None
    assert (tmp_path / "outside/b").read_bytes() == b"outside"


def test_the_journal_that_cannot_be_written_stops_it(scene: Make) -> None:
    made = mirrored(scene)
    (made.source / "a").write_bytes(b"changed")
    before = trees.read(made.target)
    readonly = os.open(made.journal_path, os.O_RDONLY)
    try:
        with pytest.raises(OSError, match="Bad file descriptor"):
            express(made, b"a", journal=readonly)
    finally:
        os.close(readonly)
    assert trees.read(made.target) == before
    made.tidy()


def test_an_ignored_name_is_none_of_ours(scene: Make) -> None:
    made = scene({**START, "x.log": b"log"}, ignore=b"*.log\n")
    made.cycle()
    learn_root(made)
    (made.source / "x.log").write_bytes(b"more")
    outcomes = express(made, b"x.log")
    assert outcomes is not None
    assert ends(outcomes) == {}
    assert not (made.target / "x.log").exists()
    assert {row.kind for _, row in made.base.rows()} == {Kind.FILE, Kind.DIR, Kind.LINK}


def test_the_bits_that_are_not_mirrored_are_told(scene: Make) -> None:
    made = mirrored(scene)
    (made.source / "run").write_bytes(b"#!/bin/sh")
    (made.source / "run").chmod(0o4755)
    outcomes = express(made, b"run")
    assert outcomes is not None
    assert [path for path, _ in outcomes.dropped] == [b"run"]
    assert (made.target / "run").stat().st_mode & 0o7777 == 0o755


def test_a_fifo_elsewhere_is_in_nobodys_way(scene: Make) -> None:
    made = scene({**START, "pipe": Fifo()})
    made.cycle()
    learn_root(made)
    (made.source / "a").write_bytes(b"changed")
    assert express(made, b"a") is not None
    assert (made.target / "a").read_bytes() == b"changed"
