"""A source, a target and a home for every test."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest


class Place(NamedTuple):
    """Three directories: what is mirrored, where to, and where syncd keeps its state."""

    source: Path
    target: Path
    home: Path


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """A small source; the target is not made yet."""
    source = tmp_path / "source"
    source.mkdir()
    (source / "a.txt").write_text("a")
    (source / "dir").mkdir()
    (source / "dir" / "b.txt").write_text("b")
    return Place(source, tmp_path / "target", tmp_path / "home")
