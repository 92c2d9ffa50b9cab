"""Both bodies killed at each step of `place`: what is left can be told from the journal, and nothing is lost."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from syncd.kernel.contract import Intent
from syncd.model.entry import Kind
from tests import trees
from tests.conformance.conftest import Make
from tests.conformance.scene import MIRROR, Scene
from tests.trees import F1, F2, F3, Link, build

TOP = Path(__file__).parents[2]
BIG = b"big" * 100_000
BEFORE: dict[str, Any] = {
    "inplace": b"old 1", "beside": BIG, "gone": b"old 2", "d": {"x": b"old 3", "y": b"old 4"}, "kind": {"f": b"old 5"},
    "conflict": b"old 6", "edited": b"old 7", "file": b"old 8", "l": Link("one"),
}  # fmt: skip
AFTER: dict[str, Any] = {
    "inplace": b"new 1!", "beside": BIG[::-1], "new": b"new 2", "newd": {"deep": {"f": b"new 3"}}, "kind": b"new 4",
    "conflict": b"new 5", "edited": b"old 7", "file": {"inside": b"new 6"}, "l": Link("two"),
}  # fmt: skip
MINE = [b"the container's edit", b"the container's conflict", b"the container's file", b"the container's too"]

STEPS = {
    "take": 3,
    "intents": 1,
    "publish-linked": 2,
    "publish-renamed": 2,
    "publish-inplace": 1,
    "publish-mkdir": 2,
    "publish-removed": 2,
    "publish-aside": 2,
    "outcomes": 1,
}


def make(scene: Make) -> Scene:
    """A scene in which a cycle passes every step, and the container has something to lose."""
    made = scene(BEFORE)
    made.cycle()
    shutil.rmtree(made.source)
    build(made.source, AFTER)
    made.roots[0].close()
    made.roots[0] = made.kernel.open_root(os.fsencode(made.source))
    build(made.target, {"edited": MINE[0], "conflict": MINE[1], "kind": {"mine": MINE[2]}, "made": MINE[3]})
    return made


DRIVER = """
import sys
from pathlib import Path
from syncd.kernel.choose import load
from tests.conformance.scene import MIRROR, Scene

made = Scene(load(sys.argv[1]), Path(sys.argv[2]))
made.base = made.load().base
made.cycle(verbs=MIRROR, write=sys.argv[3])
"""


def killed(made: Scene, step: str, write: str = "auto") -> bool:
    """Whether a cycle in a process of its own was killed at a step."""
    command = [sys.executable, "-c", DRIVER, made.kernel.name, str(made.source.parent), write]
    done = subprocess.run(command, env={**os.environ, "SYNCD_CRASH_AT": step, "PYTHONPATH": str(TOP)}, check=False)
    assert done.returncode in (0, -signal.SIGKILL)
    return done.returncode != 0


@pytest.mark.parametrize(("step", "number"), [(step, n) for step, most in STEPS.items() for n in range(1, most + 1)])
def test_killed_at_each_step(scene: Make, step: str, number: int) -> None:
    made = make(scene)
    assert killed(made, f"{step}:{number}")

    # Everything of the container's is in the target or in staging, under whatever name.
    left = set(trees.contents(made.target) + trees.contents(made.staging))
    assert set(MINE) <= left

    # The journal is whole; it tells of every path that may have been touched.
    found = made.load()
    assert found.whole
    before = trees.as_bytes(BEFORE)
    if step == "take":
        assert found.intents == []
        assert trees.read(made.target)[b"inplace"] == before[b"inplace"]
    elif step == "outcomes":
        assert found.intents == []
    else:
        told = {intent.path: intent for intent in found.intents}
        assert set(told) >= {b"inplace", b"beside", b"gone", b"d", b"d/x", b"new", b"newd", b"kind", b"conflict", b"l"}
        assert told[b"gone"] == Intent(b"gone", 0, None, None)
        assert told[b"l"] == Intent(b"l", Kind.LINK, None, b"two")
        assert told[b"newd"] == Intent(b"newd", Kind.DIR, None, None)
    if step == "intents":
        assert trees.read(made.target)[b"gone"] == b"old 2"

    # The next runs come to the mirror, whatever was left half done.
    made.base = found.base
    for name in os.listdir(made.staging):
        if name.startswith("new-"):
            os.unlink(made.staging / name)
    made.cycle(verbs=MIRROR)
    made.cycle(verbs=MIRROR)
    assert made.same_content()
    assert set(MINE) <= set(trees.contents(made.staging))


def test_an_unknown_or_later_step_kills_nothing(scene: Make) -> None:
    made = make(scene)
    assert not killed(made, "publish-linked:99")


@pytest.mark.parametrize("data", [F2, BIG], ids=["small", "big"])
def test_a_reader_finds_the_old_or_the_new_and_never_half(scene: Make, data: bytes) -> None:
    for step in ("publish-linked", "publish-renamed"):
        made = scene({"f": F1})
        made.cycle()
        (made.source / "f").write_bytes(data)
        assert killed(made, f"{step}:1", "replace")
        assert (made.target / "f").read_bytes() == (F1 if step == "publish-linked" else data)


def test_killed_between_aside_and_the_new_entry(scene: Make) -> None:
    made = scene({"p": F1})
    made.cycle()
    (made.source / "p").write_bytes(F2)
    (made.target / "p").write_bytes(F3)
    assert killed(made, "publish-aside:1")
    assert F3 in trees.contents(made.staging)
    assert (made.target / "p").read_bytes() == F3, "something is at its name, at each moment"
    assert [intent.path for intent in made.load().intents] == [b"p"]
    assert killed(made, "publish-renamed:1")
    assert (made.target / "p").read_bytes() == F2
    assert F3 in trees.contents(made.staging)
