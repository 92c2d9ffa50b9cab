"""Attackers in C, and a place of their own where every read leaves its time."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).parent
FILE_SIZE = 512 << 20  # of a loop image, sparse


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Compiles `NAME.c` of this directory, once."""
    top = tmp_path_factory.mktemp("compiled")

    def build(name: str) -> Path:
        program = top / name
        if not program.exists():
            source = HERE / f"{name}.c"
            subprocess.run(["gcc", "-O2", "-Wall", "-Wextra", "-Werror", "-o", program, source], check=True)
        return program

    return build


@pytest.fixture(params=["tmpfs"])
def arena(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A filesystem mounted with strict access times; a plain directory where mounting is not allowed.

    Parametrised with "tmpfs" or "ext4" (a loop image).
    """
    top = tmp_path / "arena"
    top.mkdir()
    if os.geteuid() != 0:
        yield top
        return
    command = ["mount", "-t", request.param, "-o", "strictatime"]
    if request.param == "tmpfs":
        command[-1] += ",size=1g"
        command.append("tmpfs")
    else:
        image = tmp_path / "image"
        with image.open("wb") as file:
            file.truncate(FILE_SIZE)
        subprocess.run([f"mkfs.{request.param}", "-q", "-F", image], check=True)
        command[-1] += ",loop"
        command.append(str(image))
    mounted = subprocess.run([*command, top], capture_output=True).returncode == 0
    try:
        yield top
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", top], check=True)
