"""Killed at any moment: after the next run the target is equal, and nobody lost a file."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.compare import read_tree
from tests.crash.journal import intent_is_open
from tests.integration.watching import SYNCD, environment, run

STEPS = (
    "take",
    "intents",
    "publish-linked",
    "publish-renamed",
    "publish-inplace",
    "publish-mkdir",
    "publish-removed",
    "publish-aside",
    "outcomes",
)


class Scene:
    """A pair with edits on both sides, and the invariants that any crash must keep."""

    def __init__(self, top: Path, seed: int, files: int) -> None:
        self.source, self.target, self.home = top / "source", top / "target", top / "home"
        self.random = random.Random(seed)
        self.env = environment(self.home)
        self.source.mkdir()
        self.containers: dict[str, bytes] = {}  # what the container made; must survive under its name
        self.edits: set[bytes] = set()  # what the container wrote over mirrored files; must survive somewhere
        self.round = 0
        self.fill(files)

    def fill(self, files: int) -> None:
        """Make again what is missing of so many files, unless something else stands in its place."""
        for number in range(files):
            path = self.source / f"d{number % 17}" / f"f{number}"
            if not os.path.lexists(path):
                self.write(path, self.body())

    def body(self) -> bytes:
        size = self.random.choice((0, 10, 3000, 9000, 200_000))
        return (b"%d %d " % (self.round, self.random.getrandbits(60))).ljust(size, b".")

    def write(self, path: Path, body: bytes) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        if self.random.random() < 0.5 or not path.exists():
            beside = path.with_name(path.name + ".~tmp~")
            beside.write_bytes(body)
            beside.rename(path)
        else:
            path.write_bytes(body)

    def edit(self, share: float) -> None:
        """Edit both sides: changes, removals, kind changes, new directories; a container's files and edits."""
        self.round += 1
        files = sorted(path for path in self.source.rglob("f*") if path.is_file() and not path.is_symlink())
        for path in self.random.sample(files, int(len(files) * share)):
            choice = self.random.random()
            if choice < 0.7:
                self.write(path, self.body())
            elif choice < 0.8:
                path.unlink()
            elif choice < 0.85:
                path.unlink()
                path.mkdir()
                (path / "inside").write_bytes(self.body())
            elif choice < 0.9:
                path.unlink()
                path.symlink_to("../d1")
            else:
                path.chmod(self.random.choice((0o600, 0o755, 0o644)))
        for number in range(5):
            self.write(self.source / f"new{self.round}" / f"f{self.round}-{number}", self.body())
        mirrored = sorted(path for path in self.target.rglob("f*") if path.is_file() and not path.is_symlink())
        for path in self.random.sample(mirrored, min(3, len(mirrored))):
            body = b"container's edit %d %d" % (self.round, self.random.getrandbits(60))
            beside = path.with_name(".edit")
            beside.write_bytes(body)
            beside.rename(path)
            if (self.source / path.relative_to(self.target)).is_file():
                self.write(self.source / path.relative_to(self.target), self.body())  # a conflict
            self.edits.add(body)
        made = f"container-{self.round}"
        (self.target / made).write_bytes(made.encode())
        self.containers[made] = made.encode()

    def sync(self, **env: str) -> subprocess.CompletedProcess[str]:
        return run("sync", str(self.source), str(self.target), env=self.env | env)

    def check(self) -> None:
        """A run to the end: equal but for the container's own, and all of the container's is somewhere."""
        done = self.sync()
        assert done.returncode == 0, done.stderr
        ours = read_tree(self.source)
        theirs = read_tree(self.target, leave_out=[name.encode() for name in self.containers])
        assert ours == theirs
        for name, body in self.containers.items():
            assert (self.target / name).read_bytes() == body
        kept = {path.read_bytes() for path in (self.home / "state").rglob("conflicts/**/*") if path.is_file()}
        lost = self.edits - kept - {path.read_bytes() for path in self.target.rglob("*") if path.is_file()}
        assert not lost
        staging = self.home / "state"
        assert not [path for path in staging.rglob("staging/*") if path.name != "conflicts"]


@pytest.mark.kernel
@pytest.mark.parametrize(("files", "numbers"), [(60, (1, 2, 7, 23)), (240, (1, 40, 75))], ids=["few", "many"])
@pytest.mark.parametrize("step", STEPS)
def test_killed_at_each_step(tmp_path: Path, step: str, files: int, numbers: tuple[int, ...]) -> None:
    scene = Scene(tmp_path, seed=len(step), files=files)
    scene.check()
    for number in numbers:
        scene.edit(0.5)
        killed = scene.sync(SYNCD_CRASH_AT=f"{step}:{number}")
        if number == 1:
            assert killed.returncode == -9, f"step {step} was never passed"
        scene.check()


INTENTS = 2_000  # bytes: fewer than the intents of a batch take, more than the notes of a start


def size_of_journals(home: Path) -> int:
    total = 0
    for path in home.glob("state/syncd/*/journal.*"):
        with contextlib.suppress(FileNotFoundError):
            total += path.stat().st_size
    return total


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_killed_at_random_moments(tmp_path: Path) -> None:
    """At least 200 kills, at least 150 of them with an intent open in the journal."""
    scene = Scene(tmp_path, seed=59, files=600)
    scene.check()
    kills = opened = 0
    choose = random.Random(60)
    began = time.monotonic()
    assert scene.sync().returncode == 0
    startup = time.monotonic() - began
    batch = 0.02  # seconds for which intents are open, as far as the kills have shown
    for _ in range(600):
        if kills >= 200 and opened >= 150:
            break
        scene.edit(0.6)
        for path in [path for path in scene.source.rglob("f*") if path.is_symlink()]:
            path.unlink()
        for path in [path for path in scene.source.rglob("f*") if path.is_dir()]:
            shutil.rmtree(path)
        scene.fill(600)
        before = size_of_journals(scene.home)
        process = subprocess.Popen(
            [*SYNCD, "sync", str(scene.source), str(scene.target)],
            env=scene.env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        anywhere = choose.random() < 0.15
        if anywhere:
            delay = choose.uniform(0.1, 1.2) * startup
        else:
            while process.poll() is None and size_of_journals(scene.home) < before + INTENTS:
                pass
            delay = choose.uniform(0.0, 1.0) * batch
        try:
            process.wait(delay)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            kills += 1
            is_open = intent_is_open(scene.home)
            opened += is_open
            if not anywhere:
                batch *= 1.1 if is_open else 0.7
        scene.check()
    assert kills >= 200
    assert opened >= 150


@pytest.mark.kernel
@pytest.mark.parametrize("damage", ["truncated", "flipped", "missing", "empty"])
def test_a_damaged_baseline_loses_nothing(tmp_path: Path, damage: str) -> None:
    scene = Scene(tmp_path, seed=5, files=40)
    scene.check()
    scene.edit(0.3)
    scene.check()
    scene.edit(0.3)
    for file in [*scene.home.rglob("baseline.*"), *scene.home.rglob("journal.*")]:
        body = file.read_bytes()
        if damage == "missing":
            file.unlink()
        elif damage == "empty":
            file.write_bytes(b"")
        elif damage == "truncated":
            file.write_bytes(body[: len(body) // 2])
        elif body:
            at = len(body) // 2
            file.write_bytes(body[:at] + bytes([body[at] ^ 0x40]) + body[at + 1 :])
    before = {path: path.read_bytes() for path in scene.target.rglob("*") if path.is_file()}
    done = run("sync", str(scene.source), str(scene.target), "--adopt", env=scene.env)
    assert done.returncode == 0, done.stderr
    kept = {path.read_bytes() for path in (scene.home / "state").rglob("conflicts/**/*") if path.is_file()}
    kept |= {path.read_bytes() for path in scene.target.rglob("*") if path.is_file()}
    assert set(before.values()) <= kept
    for path, seen in read_tree(scene.source).items():
        assert read_tree(scene.target)[path] == seen


@pytest.mark.kernel
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "ended"])
@pytest.mark.parametrize("whole", [True, False], ids=["directory", "files"])
def test_removals_that_were_cut_short_are_still_vouched_for(tmp_path: Path, how: int, whole: bool) -> None:
    """More of them than the guard lets pass without a trace: the next run goes on, and asks nobody."""
    scene = Scene(tmp_path, seed=3, files=17)
    many = scene.source / "d1" / "many"
    many.mkdir()
    for number in range(300):
        (many / f"{number}").write_bytes(b"one of many")
    scene.check()
    for path in many.iterdir():
        path.unlink()
    if whole:
        many.rmdir()
    command = [*SYNCD, "sync", str(scene.source), str(scene.target)]
    with subprocess.Popen(command, env=scene.env | {"SYNCD_CRASH_AT": "publish-removed:20:stop"}) as process:
        os.waitpid(process.pid, os.WUNTRACED)
        process.send_signal(how)
        process.send_signal(signal.SIGCONT)
        process.wait(60)
    if how == signal.SIGKILL:
        left = len(os.listdir(scene.target / "d1" / "many"))
        assert 270 < left <= 280, "one thread stopped; another one ended what it was at"
    scene.check()


def test_intents_are_seen_open_by_the_format_alone(tmp_path: Path) -> None:
    scene = Scene(tmp_path, seed=1, files=20)
    scene.check()
    assert not intent_is_open(scene.home)
    scene.edit(0.5)
    scene.sync(SYNCD_CRASH_AT="publish-renamed:1")
    assert intent_is_open(scene.home)
    scene.check()
    assert not intent_is_open(scene.home)


@pytest.mark.kernel
def test_a_doubtful_path_of_a_killed_run_takes_nothing_else_along_when_the_source_is_another_one(
    tmp_path: Path,
) -> None:
    """What stands there is set aside; what the container made, edited and removed elsewhere is not looked at."""
    source, target, env = tmp_path / "source", tmp_path / "target", environment(tmp_path / "home")
    source.mkdir()
    for name in ("torn", "edited", "removed", "other"):
        (source / name).write_text(name)
    assert run("sync", str(source), str(target), env=env).returncode == 0
    (target / "made").write_text("the container's")
    (target / "edited").write_text("the container's")
    (target / "removed").unlink()
    (source / "torn").write_text("new")
    run("sync", str(source), str(target), env=env | {"SYNCD_CRASH_AT": "publish-renamed:1"})
    assert intent_is_open(tmp_path / "home")
    (target / "torn").write_text("neither the one nor the other")
    shutil.copytree(source, tmp_path / "copy", copy_function=shutil.copy2)
    shutil.rmtree(source)
    (tmp_path / "copy").rename(source)
    done = run("sync", str(source), str(target), env=env)
    assert done.returncode == 0, done.stderr
    assert {path.name: path.read_text() for path in target.iterdir()} == {
        "torn": "new", "other": "other", "made": "the container's", "edited": "the container's"
    }  # fmt: skip
    (kept,) = (path for path in (tmp_path / "home").rglob("conflicts/*/*"))
    assert kept.read_text() == "neither the one nor the other"
