"""Fixtures of the conformance suite."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.scene import Scene

Make = Callable[..., Scene]


@pytest.fixture
def scene(kernel: Any, tmp_path: Path) -> Iterator[Make]:
    """Makes scenes: scene(source, target, **options)."""
    made: list[Scene] = []

    def make(source: Any = None, target: Any = None, **options: Any) -> Scene:
        top = tmp_path / f"scene{len(made)}"
        top.mkdir()
        made.append(Scene(kernel, top, source, target, **options))
        return made[-1]

    yield make
    for each in made:
        each.close()


NOBODY = 65534


@pytest.fixture
def as_user() -> Callable[[Scene], AbstractContextManager[None]]:
    """Runs a part of a test as a user without rights, who owns both roots and staging."""

    @contextmanager
    def run(made: Scene) -> Iterator[None]:
        if os.geteuid() != 0:
            yield
            return
        for top in (made.source, made.target, made.staging):
            for directory, _, names in os.walk(top):
                for name in [directory, *(os.path.join(directory, each) for each in names)]:
                    if os.lstat(name).st_uid != NOBODY:
                        os.chown(name, NOBODY, NOBODY, follow_symlinks=False)
        os.setegid(NOBODY)
        os.seteuid(NOBODY)
        try:
            yield
        finally:
            os.seteuid(0)
            os.setegid(0)

    return run
