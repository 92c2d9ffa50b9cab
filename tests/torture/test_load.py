"""A watch under random load ends equal, and leaves nothing of its own behind."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.compare import assert_equal
from tests.integration.watching import watching

SECONDS = float(os.environ.get("SYNCD_TORTURE", "600"))


def under_load(tmp_path: Path, seed: int, seconds: float) -> None:
    source, target, home = tmp_path / "source", tmp_path / "target", tmp_path / "home"
    source.mkdir()
    with watching(source, target, home) as watch:
        loads = [
            subprocess.Popen(
                [sys.executable, str(Path(__file__).with_name("load.py")), str(source), str(seed + n), str(seconds)],
                stdout=subprocess.PIPE,
            )
            for n in range(2)
        ]
        done = [int(load.communicate(timeout=seconds + 60)[0]) for load in loads]
        assert watch.flush("--timeout", "120") == 0
        assert_equal(source, target)
        assert watch.stop() == 0
        assert min(done) > seconds  # it did work
    assert not [path for path in home.rglob("*") if path.name.startswith(("new-", "old-"))]
    assert not list(target.rglob(".syncd*"))


@pytest.mark.kernel
def test_a_short_load(tmp_path: Path) -> None:
    under_load(tmp_path, 3, 5.0)


@pytest.mark.slow
@pytest.mark.torture
@pytest.mark.parametrize("seed", [3, 4, 5, 6, 7])
def test_a_long_load(tmp_path: Path, seed: int) -> None:
    under_load(tmp_path, seed * 100, SECONDS / 5)
