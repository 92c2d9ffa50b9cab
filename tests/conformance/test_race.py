"""A container that writes its mirror all the time, against either body: nothing it wrote is lost.

Everything that it ever put into the target has to stand, in the end, in the target, in what was set
aside, or where the container itself took it.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests import trees
from tests.conformance.conftest import Make
from tests.conformance.scene import KEEP, MIRROR, Scene

NAMES = [f"f{number}" for number in range(6)]
CYCLES = 60
CONTAINER = Path(__file__).with_name("container.py")


def change(scene: Scene, chance: random.Random, number: int) -> None:
    """One change in the source: a content, a time, a removal, a kind."""
    path = scene.source / chance.choice(NAMES)
    what = chance.random()
    if path.is_dir():
        shutil.rmtree(path)
    if what < 0.6 or not path.exists():
        path.write_bytes(b"source %d" % number + b"x" * chance.choice((0, 0, 1000, 1000, 140_000)))
    elif what < 0.75:
        os.utime(path, ns=(number, number))
    elif what < 0.85:
        path.unlink()
    else:
        path.unlink()
        trees.build(path, {"inside": b"%d" % number})


@pytest.mark.slow
@pytest.mark.parametrize("verbs", [KEEP, MIRROR], ids=["keep", "mirror"])
@pytest.mark.parametrize("how", ["take and make", "append"])
def test_nothing_that_a_racing_container_wrote_is_lost(scene: Make, tmp_path: Path, how: str, verbs: dict) -> None:
    made = scene(dict.fromkeys(NAMES, b"start"))
    made.cycle()
    private = tmp_path / "private"
    private.mkdir()
    command = [sys.executable, "-S", str(CONTAINER), str(made.target), str(private), how]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        process.stdout.readline()  # it has begun
        chance = random.Random(2)
        for number in range(CYCLES):
            change(made, chance, number)
            made.cycle(verbs=verbs)
    finally:
        told, _ = process.communicate(timeout=30)
    for _ in range(3):
        made.cycle(verbs=verbs)
    assert process.returncode == 0
    written = set(map(int, told.split()))
    everywhere = trees.contents(made.target) + made.kept() + trees.contents(private)
    left = {int(stamp) for body in everywhere for stamp in re.findall(rb"<stamp (\d+)>", body)}
    assert written
    # Not promised: a rename over the name within the microseconds between a last look and the rename or unlink.
    lost = sorted(written - left)
    assert len(lost) <= 2, lost
    made.tidy()
    if verbs is MIRROR:
        assert made.same_content()
