"""No torn copy: a file that somebody writes is copied whole, as one version, or not yet.

In version N of a file every 8-byte word is N, so a torn copy is seen by itself.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from syncd.engine.ignore import compile_rules
from syncd.kernel.choose import load
from syncd.kernel.contract import PlaceOptions, Side, Status
from syncd.model.change import Line
from syncd.model.plan import Verb
from syncd.model.settings import Settings
from tests.compare import assert_equal
from tests.integration.watching import Watching, watching

SIZE = 1 << 20
NEVER_STOPS = [("pwrite", 3000), ("whole", 3000), ("mmap", 3000)]
VERBS = {Line.CHANGED: Verb.PUT, Line.CONFLICT: Verb.PUT, Line.EDITED: Verb.PUT, Line.LOST: Verb.PUT}


@contextlib.contextmanager
def writer(program: Path, file: Path, how: str, pause_us: int) -> Iterator[subprocess.Popen[bytes]]:
    """A running writer that has begun. A word on its standard input ends it; its last version is then printed."""
    file.write_bytes(b"\0" * SIZE)
    with subprocess.Popen(
        [program, file, str(SIZE), how, str(pause_us)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        try:
            while file.read_bytes()[:8] == bytes(8):
                assert process.poll() is None
            yield process
        finally:
            process.kill()


def end(process: subprocess.Popen[bytes]) -> bytes:
    """End a writer and return the content that it left."""
    out, _ = process.communicate(b"stop", timeout=60)
    return int(out).to_bytes(8, "little") * (SIZE // 8)


def is_whole(body: bytes) -> bool:
    return len(body) == SIZE and body == body[:8] * (SIZE // 8)


class Copier:
    """Copies one file by `kernel.place`, again and again: no settling, no event, only the kernel's own care."""

    def __init__(self, top: Path) -> None:
        self.kernel = load()
        self.source, self.target, self.staging = top / "source", top / "target", top / "staging"
        for path in (self.source, self.target, self.staging):
            path.mkdir()
        self.rules = compile_rules(self.kernel, Settings(b"", b""))
        self.counts: dict[Status, int] = dict.fromkeys(Status, 0)
        self.torn = 0
        self.versions: set[bytes] = set()

    def run(self, accepted: int, limit: float) -> None:
        """Until so many copies were accepted, or `limit` seconds passed."""
        roots = [self.kernel.open_root(os.fsencode(path)) for path in (self.source, self.target)]
        staging = os.open(self.staging, os.O_RDONLY | os.O_DIRECTORY)
        base = self.kernel.empty_base()
        deadline = time.monotonic() + limit
        try:
            while self.counts[Status.DONE] < accepted and time.monotonic() < deadline:
                control = self.kernel.control()
                journal = os.open(
                    self.staging / "journal", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND
                )  # fmt: skip
                try:
                    source, target = (
                        self.kernel.scan(root, self.rules, side, base, None, control)
                        for root, side in zip(roots, Side, strict=True)
                    )
                    actions = self.kernel.diff(base, source, target).actions(VERBS)
                    options = PlaceOptions(staging, journal, b"aside")
                    done = self.kernel.place(
                        roots[0], roots[1], self.rules, base, actions, 0, len(actions), options, control
                    )  # fmt: skip
                    base = self.kernel.patch(base, done)
                finally:
                    os.close(journal)
                assert not done.troubles
                self._judge(done.counts())
        finally:
            os.close(staging)
            for root in roots:
                root.close()

    def _judge(self, counts: dict[Status, int]) -> None:
        for status, count in counts.items():
            self.counts[status] += count
        if counts.get(Status.DONE):
            body = (self.target / "file").read_bytes()
            self.torn += not is_whole(body)
            self.versions.add(body[:8])

    def __str__(self) -> str:
        counts = ", ".join(f"{count} {status}" for status, count in self.counts.items() if count)
        return f"{counts}; {len(self.versions)} versions, {self.torn} torn"


def copy_from(top: Path, program: Path, how: str, pause_us: int, accepted: int) -> Copier:
    copier = Copier(top)
    with writer(program, copier.source / "file", how, pause_us):
        copier.run(accepted, 30 + accepted / 4)
    print(f"{copier.kernel.name}, {how}, a pause of {pause_us} us: {copier}")
    assert copier.torn == 0
    return copier


@pytest.mark.kernel
@pytest.mark.parametrize(("how", "pause_us"), NEVER_STOPS)
def test_no_torn_copy_from_a_writer_that_never_stops(
    tmp_path: Path, compiled: Callable[[str], Path], how: str, pause_us: int
) -> None:
    """A hundredth of the long run."""
    copier = copy_from(tmp_path, compiled("tear"), how, pause_us, 34)
    assert copier.counts[Status.DONE] >= 34


@pytest.mark.kernel
@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("arena", ["tmpfs", "ext4"], indirect=True)
@pytest.mark.parametrize(("how", "pause_us"), NEVER_STOPS)
def test_no_torn_copy_among_ten_thousand(arena: Path, compiled: Callable[[str], Path], how: str, pause_us: int) -> None:
    """The three writers on the two filesystems come to more than 10,000 accepted copies together."""
    copier = copy_from(arena, compiled("tear"), how, pause_us, 1700)
    assert copier.counts[Status.DONE] >= 1700
    assert copier.counts[Status.BUSY] > 0, "the writer was never met"


@pytest.mark.kernel
@pytest.mark.parametrize("how", ["held", "mapped"])
def test_a_file_held_open_and_changing_is_never_taken(
    tmp_path: Path, compiled: Callable[[str], Path], how: str
) -> None:
    """Unless the caller is patient; and then a writer that stands still for 30 ms can not be told from one at rest."""
    copier = Copier(tmp_path)
    with writer(compiled("tear"), copier.source / "file", how, 200):
        copier.run(1, 1.0)
    assert copier.counts[Status.DONE] == 0
    assert copier.counts[Status.BUSY] > 0
    assert copier.torn == 0


@pytest.mark.kernel
@pytest.mark.parametrize("how", ["pwrite", "mmap"])
def test_a_writer_that_pauses_is_followed(tmp_path: Path, compiled: Callable[[str], Path], how: str) -> None:
    """50 ms between versions are enough; a fiftieth of the long run."""
    copier = copy_from(tmp_path, compiled("tear"), how, -50_000, 20)
    assert copier.counts[Status.DONE] >= 20


@pytest.mark.kernel
@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("how", ["pwrite", "mmap"])
def test_a_writer_that_pauses_is_followed_a_thousand_times(
    tmp_path: Path, compiled: Callable[[str], Path], how: str
) -> None:
    copier = copy_from(tmp_path, compiled("tear"), how, -50_000, 1000)
    assert copier.counts[Status.DONE] >= 1000


@pytest.mark.kernel
@pytest.mark.parametrize(
    ("how", "pause_us"), [*NEVER_STOPS, ("pwrite", -50_000), ("mmap", -50_000), ("held", -50_000), ("mapped", 200)]
)
def test_a_second_after_the_writer_ended_the_target_is_equal(
    tmp_path: Path, compiled: Callable[[str], Path], how: str, pause_us: int
) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    with watching(source, target, tmp_path / "home") as watch:
        with writer(compiled("tear"), source / "file", how, pause_us) as process:
            for _ in range(1 if how == "mapped" else 3):  # stores into a mapping that stays are told by nobody
                watch.report()
                copied = target / "file"
                assert not copied.exists() or is_whole(copied.read_bytes())
            last = end(process)
            ended = time.monotonic()
        assert until_equal(watch, target / "file", last) - ended < 1.0
        assert watch.flush() == 0
        assert_equal(source, target)


def until_equal(watch: Watching, file: Path, body: bytes) -> float:
    """When the copy was seen to hold `body`; looked at after each cycle that wrote."""
    while not file.exists() or file.read_bytes() != body:
        watch.report(10)
    return time.monotonic()
