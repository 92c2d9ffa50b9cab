"""A watch over a repository in which somebody works."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from syncd.control.status import State
from syncd.engine.cycle import look_ahead
from syncd.engine.pair import Pair
from syncd.engine.scan import Sight
from syncd.model.change import Batch
from syncd.model.settings import Timing
from tests.compare import are_equal, assert_equal
from tests.integration.engine import Engine
from tests.integration.watching import Watching, run, watching
from tests.machine import call, eventually, needs_root, tmpfs
from tests.repository import git, make_repository

pytestmark = pytest.mark.kernel

SLOW = [pytest.mark.slow, pytest.mark.timeout(600)]
PACKAGES = Path(__file__).parent / "packages"


@contextmanager
def working(top: Path, commits: int, *options: str) -> Iterator[Watching]:
    """A watch over a fresh repository."""
    make_repository(top / "source", commits)
    with watching(top / "source", top / "target", top / "home", *options) as watch:
        assert_flushed(watch)
        yield watch


def assert_flushed(watch: Watching) -> None:
    answer = watch.run("flush")
    assert answer.returncode == 0, answer.stderr
    assert_equal(watch.source, watch.target)


def arrived(file: Path, text: str) -> None:
    eventually(lambda: file.read_text() == text, f"{text!r} did not arrive by itself")


@pytest.mark.parametrize(("commits", "checkouts"), [(300, 10), pytest.param(3000, 100, marks=SLOW)])
def test_random_checkouts(tmp_path: Path, commits: int, checkouts: int) -> None:
    choose_one = random.Random(3)
    with working(tmp_path, commits) as watch:
        for _ in range(checkouts):
            git(watch.source, "checkout", "-q", f"c{choose_one.randrange(commits)}")
            assert_flushed(watch)
        assert [report["halt"] for report in watch.passed() if report["halt"]] == []


def test_the_repository_itself_mirrored(tmp_path: Path) -> None:
    with working(tmp_path, 100, "--vcs") as watch:
        for number in (3, 90, 50):
            git(watch.source, "checkout", "-q", f"c{number}")
            assert watch.flush() == 0
            assert_equal(watch.source, watch.target, leave_out=())
        assert git(watch.target, "fsck", "--full", "--no-dangling") == ""
        assert git(watch.target, "status", "--porcelain") == ""


def test_to_and_fro_in_one_go_writes_nothing_that_was_there(tmp_path: Path) -> None:
    """Content that is equal again is not written again: only modes and times are."""
    with working(tmp_path, 60) as watch:
        before = {path: path.stat().st_ino for path in watch.target.rglob("*") if path.is_file()}
        git(watch.source, "checkout", "-q", "c20")
        git(watch.source, "checkout", "-q", "c59")
        assert_flushed(watch)
        assert {path for path in watch.target.rglob("*") if path.is_file()} == before.keys()


def test_a_stopped_rebase_with_saves_in_it(tmp_path: Path) -> None:
    with working(tmp_path, 50) as watch:
        source = watch.source
        file = source / "work.txt"
        file.write_text("base\n")
        git(source, "add", "work.txt")
        git(source, "commit", "-qm", "base")
        git(source, "checkout", "-qb", "topic", "main~1")
        for number in range(4):
            file.write_text(f"topic {number}\n")
            git(source, "add", "work.txt")
            git(source, "commit", "-qm", f"topic {number}")
        assert_flushed(watch)
        git(source, "rebase", "main", ok=False)
        assert (source / ".git" / "rebase-merge").exists()
        assert "<<<<<<<" in file.read_text()
        assert_flushed(watch)
        for number in range(5):
            file.write_text(f"resolving {number}\n")
            (source / "src" / f"beside{number}.py").write_text(f"{number}")
            arrived(watch.target / "work.txt", f"resolving {number}\n")
            assert_flushed(watch)
        (source / "src" / "beside0.py").unlink()
        assert_flushed(watch)
        git(source, "add", "work.txt")
        git(source, "rebase", "--skip", ok=False)
        assert_flushed(watch)
        git(source, "rebase", "--abort")
        assert_flushed(watch)
        assert file.read_text() == "topic 3\n"


def test_stash(tmp_path: Path) -> None:
    with working(tmp_path, 50) as watch:
        source = watch.source
        tracked = [source / path for path in git(source, "ls-files").splitlines()]
        for path in tracked[::3]:
            path.write_text("dirty")
        tracked[1].unlink()
        (source / "untracked").write_text("mine")
        assert_flushed(watch)
        for _ in range(3):
            git(source, "stash", "-u", "-q")
            assert_flushed(watch)
            assert not (watch.target / "untracked").exists()
            git(source, "stash", "pop", "-q")
            assert_flushed(watch)
            assert (watch.target / "untracked").read_text() == "mine"
        git(source, "reset", "-q", "--hard")
        git(source, "clean", "-qfd")
        assert_flushed(watch)


def test_branches_made_merged_and_dropped(tmp_path: Path) -> None:
    with working(tmp_path, 50) as watch:
        source = watch.source
        git(source, "checkout", "-qb", "side", "c30")
        (source / "side.txt").write_text("side")
        git(source, "add", "-A")
        git(source, "commit", "-qm", "side")
        git(source, "checkout", "-q", "main")
        assert_flushed(watch)
        git(source, "merge", "-q", "--no-edit", "side")
        assert_flushed(watch)
        git(source, "reset", "-q", "--hard", "c10")
        git(source, "worktree", "add", "-q", "--detach", "inside", "c5")
        assert watch.flush() == 0
        assert_equal(source, watch.target, leave_out=(b".git", b"inside/.git"))
        git(source, "worktree", "remove", "inside")
        assert_flushed(watch)


# --- a lock left behind -------------------------------------------------------------------------------


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    (tmp_path / "run").mkdir(mode=0o700)
    make_repository(tmp_path / "source", 20)
    return tmp_path / "source"


@pytest.mark.filterwarnings("ignore:The asyncore module is deprecated")  # the package pyinotify imports it
def test_a_lock_holds_removals_and_is_named_when_it_was_left_behind(repository: Path) -> None:
    target = repository.with_name("target")
    engine = Engine(repository, target, Timing(left_behind=1.0))
    try:
        lock = repository / ".git" / "index.lock"
        lock.touch()
        eventually(lambda: engine.runner.status.held_by == ".git/index.lock", "the lock is not seen")
        victim = next(path for path in repository.rglob("*.py") if path.is_file())
        there = target / victim.relative_to(repository)
        victim.unlink()
        (repository / "saved.txt").write_text("a save passes a lock")
        eventually((target / "saved.txt").exists, "a save waited for the lock")
        assert there.exists()
        assert "left behind" not in engine.runner.status.held_by
        eventually(lambda: not there.exists(), "the removal waits for ever")
        assert "left behind" in engine.runner.status.held_by
        assert_equal(repository, target)
        for path in list(repository.rglob("*.py"))[:20]:
            path.unlink()
        eventually(lambda: are_equal(repository, target), "an old lock holds")
        lock.unlink()
        eventually(lambda: engine.runner.status.held_by == "", "the lock is still named")
    finally:
        engine.close()


def test_a_lock_holds_and_a_flush_ends_the_hold(tmp_path: Path) -> None:
    with working(tmp_path, 20) as watch:
        lock = watch.source / ".git" / "index.lock"
        lock.touch()
        eventually(lambda: watch.status()["held_by"] == ".git/index.lock", "the lock is not named")
        for path in list(watch.source.rglob("*.py"))[:30]:
            path.unlink()
        assert_flushed(watch)
        lock.unlink()
        (watch.source / "after").write_text("after")
        eventually(lambda: watch.status()["held_by"] == "", "the lock is still named")
        assert_flushed(watch)


@pytest.mark.parametrize("watcher", ["auto", "pyinotify", "watchdog", "poll"])
def test_the_lock_of_a_repository_made_later_is_seen(tmp_path: Path, watcher: str) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "file").write_text("before git")
    with watching(source, tmp_path / "target", tmp_path / "home", "--watcher", watcher) as watch:
        git(source, "init", "-q")
        lock = source / ".git" / "index.lock"
        assert watch.flush() == 0
        lock.touch()
        eventually(lambda: watch.status()["held_by"] == ".git/index.lock", "the lock is not seen")
        lock.unlink()
        eventually(lambda: watch.status()["held_by"] == "", "the lock is still named")


@pytest.mark.parametrize("then", ["released", "flushed", "terminated", "killed"])
def test_a_held_burst_is_staged_and_shown_later(tmp_path: Path, then: str) -> None:
    """Files go to staging while the lock is there; the target changes after it, and nothing stays in staging."""
    with working(tmp_path, 20) as watch:
        state = Path(watch.env["XDG_STATE_HOME"])
        lock = watch.source / ".git" / "index.lock"
        lock.touch()
        eventually(lambda: watch.status()["held_by"] == ".git/index.lock", "the lock is not named")
        files = sorted(path.relative_to(watch.source) for path in watch.source.rglob("*.py") if path.is_file())[:100]
        for path in files:
            (watch.source / path).write_bytes(b"#")  # shorter: it goes beside

        def held() -> int:
            return sum((watch.target / path).read_bytes() != b"#" for path in files)

        if watch.status()["kernel"] == "native":
            eventually(lambda: len(list(state.rglob("new-*"))) > 10, "nothing is staged")
        kept_back = held()
        assert kept_back > 20, "the first of them pass as lone saves, not so many"
        assert lock.exists()
        if then == "flushed":
            assert_flushed(watch)
        elif then == "released":
            lock.unlink()
            eventually(lambda: not held(), "it is not mirrored")
            assert_flushed(watch)
        else:
            watch.stop(signal.SIGTERM if then == "terminated" else signal.SIGKILL)
            if then == "terminated":
                assert list(state.rglob("new-*")) == []
            assert held() == kept_back
            lock.unlink()
            assert run("sync", str(watch.source), str(watch.target), env=watch.env).returncode == 0
            assert_equal(watch.source, watch.target)
        assert list(state.rglob("new-*")) == []
        assert list(state.rglob("conflicts/*")) == []


@pytest.mark.filterwarnings("ignore:The asyncore module is deprecated")
@pytest.mark.parametrize("then", ["nothing", "made again", "edited by the container", "locked again"])
def test_a_burst_that_was_looked_at_early_is_still_right_when_its_time_comes(repository: Path, then: str) -> None:
    target = repository.with_name("target")
    engine = Engine(repository, target, Timing(released=2.0, quiet=0.5, hold=5.0))
    try:
        lock = repository / ".git" / "index.lock"
        lock.touch()
        eventually(lambda: engine.runner.status.held_by == ".git/index.lock", "the lock is not seen")
        files = sorted(path.relative_to(repository) for path in repository.rglob("*.py") if path.is_file())[:60]
        for path in files[:30]:
            (repository / path).unlink()
        for path in files[30:]:
            (repository / path).write_text("changed")
        eventually(lambda: len(engine.runner._settle) >= 40, "no burst")
        lock.unlink()
        eventually(lambda: engine.runner._ahead is not None, "it is not looked at")
        assert any((target / path).exists() for path in files[:30])
        if then == "made again":
            for path in files[:30]:
                (repository / path).write_text("back again")
        elif then == "edited by the container":
            held = next(path for path in files[30:] if (target / path).read_text() != "changed")
            (target / held).write_text("the container's")
        elif then == "locked again":
            lock.touch()
            eventually(lambda: engine.runner.status.held_by == ".git/index.lock", "the lock is not seen")
            assert any((target / path).exists() for path in files[:30])
            (repository / files[0]).write_text("the second checkout")
            lock.unlink()
        eventually(lambda: engine.runner.status.state == State.IN_SYNC, "it does not end")
        assert_equal(repository, target)
        kept = [path.read_text() for path in Path(os.environ["XDG_STATE_HOME"]).rglob("conflicts/*/**/*.py")]
        assert kept == (["the container's"] if then == "edited by the container" else [])
    finally:
        engine.close()


@pytest.mark.filterwarnings("ignore:The asyncore module is deprecated")
def test_a_word_during_the_early_look_has_it_done_again(repository: Path, monkeypatch) -> None:
    looks: list[Batch] = []

    def look(pair: Pair, batch: Batch) -> Sight | None:
        sight = look_ahead(pair, batch)
        looks.append(batch)
        if len(looks) == 1:
            (repository / "late.py").write_text("late")
        return sight

    monkeypatch.setattr("syncd.control.runner.look_ahead", look)
    engine = Engine(repository, repository.with_name("target"), Timing(released=2.0, quiet=0.5, hold=5.0))
    try:
        lock = repository / ".git" / "index.lock"
        lock.touch()
        eventually(lambda: engine.runner.status.held_by == ".git/index.lock", "the lock is not seen")
        for number in range(60):
            (repository / f"made{number}.py").write_text("made")
        eventually(lambda: engine.runner._settle.holds_burst, "no burst")
        lock.unlink()
        eventually(lambda: engine.runner._ahead is not None, "it is not looked at again")
        assert b"late.py" in looks[-1].paths
        eventually(lambda: engine.runner.status.state == State.IN_SYNC, "it does not end")
        assert_equal(repository, repository.with_name("target"))
    finally:
        engine.close()


@contextmanager
def held_burst(top: Path, *options: str) -> Iterator[tuple[Watching, list[Path]]]:
    """A watch with a small target of its own that has staged shorter versions of many files under a lock."""
    source, target = top / "source", top / "target"
    (source / ".git").mkdir(parents=True)
    files = [source / f"f{number}" for number in range(60)]
    for path in files:
        path.write_bytes(b"longer than later")
    (source / "large").write_bytes(b"1")
    with tmpfs(target, "1m"), watching(source, target, top / "home", *options) as watch:
        lock = source / ".git" / "index.lock"
        lock.touch()
        eventually(lambda: watch.status()["held_by"] == ".git/index.lock", "the lock is not named")
        for path in files:
            path.write_bytes(b"x" * 5000 if path.name > "f3" else b"short")
        if watch.status()["kernel"] == "native":
            eventually(lambda: len(list(target.rglob("new-*"))) > 8, "nothing is staged")
        yield watch, files


@needs_root
def test_what_was_staged_gives_way_to_a_save_that_needs_the_room(tmp_path: Path) -> None:
    with held_burst(tmp_path, "--write", "replace") as (watch, files):
        before = [path for path in files if (watch.target / path.name).read_bytes() != path.read_bytes()]
        about = os.statvfs(watch.target)
        staged = sum(path.stat().st_blocks * 512 for path in watch.target.rglob("new-*"))
        room = about.f_bavail * about.f_frsize
        size = room + staged // 2 if staged else room // 2  # the pure kernel stages nothing
        (watch.source / "large").write_bytes(b"l" * size)
        eventually(lambda: (watch.target / "large").stat().st_size == size, "it is not mirrored")
        still = [path for path in before if (watch.target / path.name).read_bytes() != path.read_bytes()]
        assert len(still) > 20, "the burst was shown under the lock"
        (watch.source / "large").write_bytes(b"1")
        (watch.source / ".git" / "index.lock").unlink()
        eventually(lambda: watch.flush() == 0, "it is not flushed")
        assert_equal(watch.source, watch.target, leave_out={b".git", b".syncd"})
        assert list(watch.target.rglob("new-*")) == []


@needs_root
def test_what_was_staged_goes_when_the_target_can_be_written_again(tmp_path: Path) -> None:
    with held_burst(tmp_path) as (watch, _):
        call("mount", "-o", "remount,ro", watch.target)
        (watch.source / ".git" / "index.lock").unlink()
        eventually(lambda: watch.status()["problems"], "no word of it")
        call("mount", "-o", "remount,rw", watch.target)
        eventually(lambda: watch.flush() == 0, "it is not flushed")
        assert_equal(watch.source, watch.target, leave_out={b".git", b".syncd"})
        (watch.source / "f1").write_bytes(b"one more")
        assert watch.flush() == 0
        assert list(watch.target.rglob("new-*")) == []


# --- node_modules -------------------------------------------------------------------------------------


def make_modules(where: Path, packages: int, seed: int = 5) -> None:
    """What an installer leaves: many packages, nested ones, links in `.bin`, files made read-only."""
    choice = random.Random(seed)
    (where / ".bin").mkdir(parents=True)
    for number in range(packages):
        scope = f"@scope{number % 9}/" if number % 3 == 0 else ""
        package = where / f"{scope}package-{number}"
        if number % 7 == 0:
            package = package / "node_modules" / "inner"
        (package / "lib" / "dist").mkdir(parents=True)
        (package / "package.json").write_text(f'{{"name": "package-{number}"}}')
        for file in range(choice.randrange(2, 12)):
            (package / "lib" / f"f{file}.js").write_bytes(choice.randbytes(choice.choice((0, 40, 900, 9000))))
        (package / "lib" / "dist" / "cli.js").write_text("#!/usr/bin/env node\n")
        (package / "lib" / "dist" / "cli.js").chmod(0o755)
        (package / "package.json").chmod(0o444)
        (where / ".bin" / f"package-{number}").symlink_to(
            os.path.relpath(package / "lib" / "dist" / "cli.js", where / ".bin")
        )


def test_modules_installed_renamed_and_removed(tmp_path: Path) -> None:
    with working(tmp_path, 5) as watch:
        modules = watch.source / "node_modules"
        make_modules(modules, 150)
        assert_flushed(watch)
        for number in range(150):
            (modules / ".bin" / f"package-{number}").unlink()  # an update: links are made again
            (modules / ".bin" / f"package-{number}").symlink_to("nowhere")
        shutil.rmtree(modules / "@scope0")
        assert_flushed(watch)
        modules.rename(watch.source / "node_modules.old")
        make_modules(modules, 60, seed=6)
        shutil.rmtree(watch.source / "node_modules.old")
        assert_flushed(watch)
        shutil.rmtree(modules)
        assert_flushed(watch)
        assert not (watch.target / "node_modules").exists()
        assert [report["halt"] for report in watch.passed() if report["halt"]] == []


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(shutil.which("npm") is None, reason="npm is not installed")
def test_npm_ci_and_rm(tmp_path: Path) -> None:
    with working(tmp_path, 5) as watch:
        for name in ("package.json", "package-lock.json"):
            shutil.copy(PACKAGES / name, watch.source / name)
        for _ in range(2):
            subprocess.run(
                ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"],
                cwd=watch.source, check=True, timeout=300, capture_output=True,
            )  # fmt: skip
            assert_flushed(watch)
            assert (watch.target / "node_modules" / ".bin" / "tsc").is_symlink()
        shutil.rmtree(watch.source / "node_modules")
        assert_flushed(watch)
        assert [report["halt"] for report in watch.passed() if report["halt"]] == []
