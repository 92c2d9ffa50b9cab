"""The floor mirrors, stays small, and the judge that measures it tells the truth."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bench import run
from bench.compare import equal

FLOOR = Path(run.__file__).with_name("floor") / "floor.c"


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run.build(tmp_path_factory.mktemp("programs") / "bin")


@contextmanager
def floor(programs: Path, source: Path, target: Path) -> Iterator[None]:
    with subprocess.Popen([programs / "floor", source, target], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == b"ready\n"
            yield
        finally:
            process.kill()


def sides(top: Path) -> tuple[Path, Path]:
    for side in ("source", "target"):
        (top / side / "d").mkdir(parents=True)
        for number in range(4):
            (top / side / f"d/f{number}").write_text(str(number))
    return top / "source", top / "target"


def test_the_floor_is_at_most_sixty_lines() -> None:
    assert len(FLOOR.read_text().splitlines()) <= 60


def test_the_floor_follows(programs: Path, tmp_path: Path) -> None:
    source, target = sides(tmp_path)
    with floor(programs, source, target):
        (source / "d/f0").write_text("other")
        (source / "d/f1").unlink()
        (source / "d/f2").rename(source / "d/moved")
        (source / "new/below").mkdir(parents=True)
        time.sleep(0.2)  # it does not look behind a directory that is filled while it is being watched
        (source / "new/below/file").write_bytes(b"x" * 300_000)
        end = time.monotonic() + 10
        while equal(source, target) and time.monotonic() < end:
            time.sleep(0.01)
    assert equal(source, target) == ""


@pytest.mark.parametrize("style", ["inplace", "rename"])
def test_the_probe_times_each_save(programs: Path, tmp_path: Path, style: str) -> None:
    source, target = sides(tmp_path)
    (tmp_path / "list").write_text("d/f0\nd/f1\n")
    command = [programs / "probe", "saves", source, target, tmp_path / "list", "10", style, "1000", "1"]
    with floor(programs, source, target):
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert len(said) == 10
    assert all(0 < int(lag) < 10_000_000_000 for lag in said)


def test_the_probe_waits_for_the_last_entry(programs: Path, tmp_path: Path) -> None:
    (tmp_path / "manifest").write_bytes(b"-1 d\0" + b"3 d/file\0")
    waiting = subprocess.Popen(
        [programs / "probe", "wait", tmp_path / "target", tmp_path / "manifest"], stdout=subprocess.PIPE, text=True
    )
    with waiting:
        (tmp_path / "target/d").mkdir(parents=True)
        (tmp_path / "target/d/file").write_bytes(b"ab")
        time.sleep(0.1)
        assert waiting.poll() is None
        before = time.monotonic_ns()
        (tmp_path / "target/d/file").write_bytes(b"abc")
        assert waiting.stdout is not None
        assert int(waiting.stdout.read()) > before
