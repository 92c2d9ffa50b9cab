"""The benchmark's trees are the same everywhere, and its comparison sees every difference."""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from bench import trees
from bench.compare import differences, equal


def fingerprint(root: Path) -> str:
    """One hash over names and bytes."""
    found = hashlib.sha256()
    for path in sorted(trees.walk(root)):
        found.update(b"%s\0%d\0" % (bytes(path.relative_to(root)), path.stat().st_size))
        found.update(path.read_bytes())
    return found.hexdigest()


@pytest.mark.parametrize(
    "make",
    [
        lambda root: trees.project(root, 200),
        lambda root: trees.node_modules(root, 300, 2),
        lambda root: trees.many(root, 250),
    ],
    ids=["project", "node_modules", "many"],
)
def test_the_same_arguments_make_the_same_bytes(tmp_path: Path, make: Callable[[Path], None]) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        make(tmp_path / name)
        trees.sixty_changes(tmp_path / name)
    assert fingerprint(tmp_path / "one") == fingerprint(tmp_path / "two")
    assert equal(tmp_path / "one", tmp_path / "two") == ""


def test_a_tree_has_as_many_files_as_it_says(tmp_path: Path) -> None:
    trees.node_modules(tmp_path, 300, 2)
    files = list(trees.walk(tmp_path))
    assert len(files) == 300
    assert 1.8 < sum(path.stat().st_size for path in files) / 2**20 < 2.2


def test_the_repository_has_two_branches_as_far_apart_as_it_says(tmp_path: Path) -> None:
    trees.repository(tmp_path, files=90, apart=60)
    command = ["git", "diff", "--name-status", "left", "right"]
    told = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout.split()[::2]
    assert sorted(set(told)) == ["A", "D", "M"]
    assert (told.count("A"), told.count("D"), told.count("M")) == (6, 6, 48)


def change(path: Path) -> None:
    path.write_bytes(b"2")


def to_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("elsewhere")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (change, "a/f: other bytes"),
        (Path.unlink, "a/f: only in the source"),
        (to_link, "a/f: of another kind"),
        (lambda path: path.with_name("g").write_bytes(b""), "a/g: only in the target"),
        (lambda path: path.parent.with_name("l").unlink(), "l: only in the source"),
    ],
    ids=["bytes", "gone", "kind", "more", "link gone"],
)
def test_a_difference_is_seen(tmp_path: Path, spoil: Callable[[Path], object], said: str) -> None:
    for side in ("source", "target"):
        (tmp_path / side / "a").mkdir(parents=True)
        (tmp_path / side / "a/f").write_bytes(b"1")
        os.utime(tmp_path / side / "a/f", ns=(0, 0))
        (tmp_path / side / "l").symlink_to("a/f")
    assert list(differences(tmp_path / "source", tmp_path / "target")) == []
    spoil(tmp_path / "target/a/f")
    assert list(differences(tmp_path / "source", tmp_path / "target")) == [said]
