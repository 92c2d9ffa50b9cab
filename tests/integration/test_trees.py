"""`sync` on real trees, judged by an independent comparison."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import oddtree
from tests.compare import assert_equal
from tests.integration.watching import environment, run

pytestmark = pytest.mark.kernel


@pytest.fixture
def roots(tmp_path: Path) -> Iterator[tuple[Path, Path]]:
    """An odd source and a target, removed even where paths are too long for `shutil`."""
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    yield source, target
    for root in (source, target):
        if root.exists():
            oddtree.remove(root)


def test_every_odd_thing(roots: tuple[Path, Path], tmp_path: Path) -> None:
    source, target = roots
    oddtree.make(source, big=64 << 20)
    env = environment(tmp_path / "home")
    done = run("sync", str(source), str(target), "--json", env=env)
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    assert_equal(source, target)
    skipped = {entry["path"].encode() for entry in record["not_mirrored"]}
    assert skipped == (oddtree.OTHERS if os.geteuid() == 0 else oddtree.OTHERS - {b"device"})
    assert {entry["path"].encode() for entry in record["mode_bits_dropped"]} == oddtree.DROPPED
    sparse = os.stat(target / "sparse")
    assert sparse.st_blocks * 512 < 8 << 20, "holes stay holes"
    again = run("sync", str(source), str(target), "--json", env=env)
    assert json.loads(again.stdout)["put"] == 0
    verified = run("verify", str(source), str(target), "--strict", "--json", env=env)
    assert verified.returncode == 0, verified.stdout


def test_its_own_repository(tmp_path: Path) -> None:
    top = Path(__file__).parents[2]
    source, target = tmp_path / "source", tmp_path / "target"
    shutil.copytree(
        top, source, symlinks=True, ignore=shutil.ignore_patterns(".venv", "target", ".hypothesis", "__pycache__")
    )
    env = environment(tmp_path / "home")
    done = run("sync", str(source), str(target), "--vcs", env=env)
    assert done.returncode == 0, done.stderr
    assert_equal(source, target, leave_out=())
    shutil.rmtree(source / "syncd")
    assert run("sync", str(source), str(target), "--vcs", env=env).returncode == 0
    assert_equal(source, target, leave_out=())


def test_dry_run_touches_nothing(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    (source / "a").write_text("a")
    target.mkdir()
    env = environment(tmp_path / "home")
    done = run("sync", str(source), str(target), "--dry-run", env=env)
    assert done.returncode == 0, done.stderr
    assert "a" in done.stdout
    assert os.listdir(target) == []
    assert not (tmp_path / "home" / "state").exists()


def test_a_first_meeting_with_other_content_is_refused_and_adopted(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    for root in (source, target):
        root.mkdir()
        (root / "same").write_text("same")
        (root / "other").write_text(root.name)
    (target / "extra").write_text("extra")
    env = environment(tmp_path / "home")
    refused = run("sync", str(source), str(target), env=env)
    assert refused.returncode == 5
    assert "other" in refused.stderr
    assert "--adopt" in refused.stderr
    assert (target / "other").read_text() == "target"
    adopted = run("sync", str(source), str(target), "--adopt", "--json", env=env)
    assert adopted.returncode == 0, adopted.stderr
    assert (target / "other").read_text() == "source"
    assert (target / "extra").read_text() == "extra"
    (aside,) = json.loads(adopted.stdout)["set_aside"]
    kept = list((tmp_path / "home" / "state").rglob("other"))
    assert [path.read_text() for path in kept] == ["target"], aside
