"""Taking the container's changes back into the source: what it must not take from there."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import stat
from pathlib import Path

import pytest

from tests.compare import read_tree
from tests.integration.conftest import Place
from tests.integration.watching import environment, run, watching, without_rights
from tests.machine import call, mounted, needs_root, tmpfs

pytestmark = pytest.mark.kernel


def test_a_pull_leaves_sockets_and_the_like_where_they_are(place: Place) -> None:
    """They are not mirrored: that the target lacks them is nobody's removal."""
    source, target, home = place
    (source / "run").mkdir()
    os.mkfifo(source / "run" / "pipe")
    os.mkfifo(source / "top")
    (source / "run" / "gone").write_text("the container removes it")
    env = environment(home)
    assert run("sync", str(source), str(target), env=env).returncode == 0
    (target / "run" / "gone").unlink()
    (target / "run" / "new").write_text("made")
    (target / "a.txt").write_text("edited")
    shown = run("pull", str(source), str(target), ".", "--dry-run", "--json", env=env)
    pulled = {each["path"] for each in json.loads(shown.stdout)["pulled"]}
    assert pulled == {"a.txt", "run/new", "run/gone"}
    assert run("pull", str(source), str(target), ".", env=env).returncode == 0
    assert (source / "a.txt").read_text() == "edited"
    assert sorted(path.name for path in (source / "run").iterdir()) == ["new", "pipe"]
    assert stat.S_ISFIFO((source / "top").stat().st_mode)
    (source / "only").mkdir()
    os.mkfifo(source / "only" / "pipe")
    assert "nothing to pull" in run("pull", str(source), str(target), "only/pipe", env=env).stderr
    assert (source / "only" / "pipe").exists()


@pytest.mark.parametrize("force", [(), ("--force",)])
@pytest.mark.parametrize("then", ["made anew", "gone", "never mirrored"])
def test_a_pull_takes_nothing_from_a_target_that_was_not_mirrored(
    place: Place, then: str, force: tuple[str, ...]
) -> None:
    """A volume that is not mounted, a target that somebody made anew: nobody removed what it lacks."""
    source, target, home = place
    env = environment(home)
    if then != "never mirrored":
        assert run("sync", str(source), str(target), env=env).returncode == 0
        target.rename(target.with_name("away"))
    if then != "gone":
        target.mkdir(exist_ok=True)
    before = read_tree(source)
    done = run("pull", *force, str(source), str(target), ".", env=env)
    assert (done.returncode, "is not the directory" in done.stderr) == (5, True), done.stderr
    assert read_tree(source) == before


def test_a_pull_from_an_emptied_target_needs_force(place: Place) -> None:
    source, target, home = place
    env = environment(home)
    assert run("sync", str(source), str(target), env=env).returncode == 0
    before = read_tree(source)
    for path in target.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    done = run("pull", str(source), str(target), ".", env=env)
    assert (done.returncode, "remove 3 entries" in done.stderr) == (5, True), done.stderr
    assert read_tree(source) == before
    shown = run("pull", "--force", "--dry-run", str(source), str(target), "a.txt", env=env)
    assert (shown.returncode, shown.stdout) == (0, "would remove  a.txt\n")
    shown = run("pull", "--force", "--json", str(source), str(target), "a.txt", env=env)
    assert json.loads(shown.stdout)["pulled"] == [{"path": "a.txt", "action": "remove"}]
    assert not (source / "a.txt").exists()
    assert (source / "dir" / "b.txt").exists()


@pytest.mark.parametrize("named", [".", "many", "many/7"])
def test_a_pull_from_a_cleared_target_needs_force(place: Place, named: str) -> None:
    """By the rule of the mirror: a stray file in it does not make its removals somebody's."""
    source, target, home = place
    (source / "many").mkdir()
    for number in range(200):
        (source / "many" / str(number)).write_text("x")
    env = environment(home)
    assert run("sync", str(source), str(target), env=env).returncode == 0
    before = read_tree(source)
    for path in (target / "many").iterdir():
        path.unlink()
    (target / "made").touch()
    for more in ((), ("--dry-run",)):
        done = run("pull", str(source), str(target), named, *more, env=env)
        assert (done.returncode, "was cleared (it lost 200 of 204" in done.stderr) == (5, True), done.stderr
    assert read_tree(source) == before
    assert run("pull", str(source), str(target), "made", env=env).returncode == 0
    assert run("pull", "--force", str(source), str(target), "many/7", env=env).returncode == 0
    assert read_tree(source).keys() == before.keys() - {b"many/7"} | {b"made"}


def test_a_pull_of_some_removals_needs_no_force(place: Place) -> None:
    source, target, home = place
    for number in range(250):
        (source / str(number)).write_text("x")
    env = environment(home)
    assert run("sync", str(source), str(target), env=env).returncode == 0
    for number in range(110):
        (target / str(number)).unlink()
    assert run("pull", str(source), str(target), ".", env=env).returncode == 0
    assert len(os.listdir(source)) == 252 - 110


@pytest.mark.parametrize("path", ["", "../x"])
def test_a_pull_of_no_path_is_a_mistake(place: Place, path: str) -> None:
    done = run("pull", str(place.source), str(place.target), path, env=environment(place.home))
    assert done.returncode == 2, done.stderr


@pytest.mark.skipif(os.geteuid() == 0 and shutil.which("setpriv") is None, reason="needs setpriv to drop root")
def test_a_pull_names_what_it_cannot_read(place: Place) -> None:
    source, target, home = place
    env = environment(home)
    assert run("sync", str(source), str(target), env=env).returncode == 0
    (target / "dir" / "b.txt").write_text("the container's")
    (target / "a.txt").write_text("the container's")
    (target / "dir").chmod(0)
    try:
        done = run("pull", str(source), str(target), ".", env=env, prefix=without_rights())
    finally:
        (target / "dir").chmod(0o755)
    assert (done.returncode, "EACCES" in done.stderr) == (3, True), done.stderr
    assert (source / "a.txt").read_text() == "the container's"
    assert (source / "dir" / "b.txt").read_text() == "b"


def test_a_pull_over_a_fifo_needs_force(place: Place) -> None:
    source, target, home = place
    env = environment(home)
    os.mkfifo(source / "pipe")
    assert run("sync", str(source), str(target), env=env).returncode == 0
    (target / "pipe").write_text("the container's")
    done = run("pull", str(source), str(target), "pipe", env=env)
    assert (done.returncode, "FIFO" in done.stderr) == (5, True), done.stderr
    assert stat.S_ISFIFO((source / "pipe").stat().st_mode)
    assert run("pull", "--force", str(source), str(target), "pipe", env=env).returncode == 0
    assert (source / "pipe").read_text() == "the container's"


def test_a_pull_sweeps_what_a_killed_one_left_and_two_do_not_run_at_once(place: Place) -> None:
    source, target, home = place
    env = environment(home)
    assert run("sync", str(source), str(target), env=env).returncode == 0
    (target / "a.txt").write_text("the container's")
    assert run("pull", str(source), str(target), "a.txt", env=env).returncode == 0
    (staging,) = home.rglob("pull/staging")
    assert run("sync", str(source), str(target), env=env).returncode == 0
    (staging / "new-0").write_text("left")
    (staging / "old-0").write_text("somebody's")
    (target / "a.txt").write_text("another")
    fd = os.open(staging, os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_EX)
    done = run("pull", str(source), str(target), "a.txt", env=env)
    assert (done.returncode, "another process writes into" in done.stderr) == (5, True), done.stderr
    os.close(fd)
    done = run("pull", str(source), str(target), "a.txt", env=env)
    assert (done.returncode, (source / "a.txt").read_text()) == (0, "another"), done.stderr
    assert not list(staging.glob("new-*")) + list(staging.glob("old-*"))
    assert [path.read_text() for path in staging.rglob("conflicts/*-unfinished/old-0")] == ["somebody's"]
    assert "old-0" in done.stdout


def test_pull_is_refused_where_the_source_changed(place: Place) -> None:
    source, target, home = place
    with watching(source, target, home) as watch:
        watch.stop()
        (target / "a.txt").write_text("the container's")
        (source / "a.txt").write_text("the host's")
        assert watch.run("pull", "a.txt").returncode == 5
        assert (source / "a.txt").read_text() == "the host's"
        assert watch.run("pull", "--force", "a.txt").returncode == 0
        assert (source / "a.txt").read_text() == "the container's"


def test_a_pull_tells_what_it_did_not_bring(place: Place) -> None:
    source, target, home = place
    env = environment(home)
    (source / "old").mkdir()
    (source / "old" / "file").write_text("to go")
    (source / "old" / "kept.log").write_text("not mirrored")
    assert run("sync", str(source), str(target), "--ignore", "*.log", env=env).returncode == 0
    shutil.rmtree(target / "old")
    (target / "a.txt").write_text("the container's")
    (target / "dir" / "b.txt").write_text("half of it")
    with open(target / "dir" / "b.txt", "a"):
        done = run("pull", str(source), str(target), ".", "--ignore", "*.log", env=env)
        assert (done.returncode, sorted(done.stdout.splitlines()[:2])) == (3, ["pulled  a.txt", "removed  old/file"])
        assert "dir/b.txt: somebody is writing it" in done.stderr
        assert "old: the directory still holds" in done.stderr
        assert "pulled  dir/b.txt" not in done.stdout
        assert "removed  old\n" not in done.stdout
    assert (source / "dir" / "b.txt").read_text() == "b"
    assert (source / "old" / "kept.log").read_text() == "not mirrored"
    shown = run("pull", str(source), str(target), "dir", "--json", env=env)
    assert json.loads(shown.stdout)["pulled"] == [{"path": "dir/b.txt", "action": "put"}]


@needs_root
def test_a_pull_into_a_full_source_tells_what_is_missing(place: Place, tmp_path: Path) -> None:
    _, target, home = place
    env = environment(home)
    with tmpfs(tmp_path / "small", "1m") as source:
        (source / "a.txt").write_text("a")
        assert run("sync", str(source), str(target), env=env).returncode == 0
        for number in range(10):
            (target / f"f{number}").write_bytes(b"x" * 200_000)
        done = run("pull", str(source), str(target), ".", "--json", env=env)
        assert done.returncode == 3
        answer = json.loads(done.stdout)
        here = {each["path"] for each in answer["pulled"]}
        assert here == set(os.listdir(source)) - {"a.txt", ".syncd"}
        missing = {f"f{number}" for number in range(10)} - here
        assert missing <= {each["path"] for each in answer["problems"]}
        assert missing
        assert all("source's filesystem" in each["text"] for each in answer["problems"])
        assert all((source / name).read_bytes() == (target / name).read_bytes() for name in here)


def test_a_pull_brings_what_has_hard_links_in_the_source_at_once(place: Place) -> None:
    """What one of them is set aside for shows in the others' ctime."""
    source, target, home = place
    env = environment(home)
    names = ["gone", "edited", "edited too", "dir/edited", "left"]
    (source / names[0]).write_text("1")
    for name in names[1:]:
        os.link(source / names[0], source / name)
    os.link(source / names[0], home.parent / "outside")
    assert run("sync", str(source), str(target), env=env).returncode == 0
    (target / "gone").unlink()
    for name in names[1:4]:
        (target / name).write_text(f"the container's {name}")
    done = run("pull", str(source), str(target), ".", "--json", env=env)
    answer = json.loads(done.stdout)
    assert (done.returncode, answer["problems"]) == (0, []), done.stderr
    assert {each["path"] for each in answer["pulled"]} == set(names[:4])
    assert {Path(each["kept"]).read_text() for each in answer["set_aside"]} == {"1"}
    assert len(answer["set_aside"]) == 4
    assert not (source / "gone").exists()
    assert all((source / name).read_text() == f"the container's {name}" for name in names[1:4])
    assert (source / "left").read_text() == (home.parent / "outside").read_text() == "1"


@pytest.mark.parametrize("named", [".", "dir"])
def test_a_pull_takes_hard_links_out_of_a_directory_that_has_to_stay(place: Place, named: str) -> None:
    source, target, home = place
    env = environment(home)
    (source / "dir" / "kept.log").write_text("not mirrored")
    for name in ("link", "other link"):
        os.link(source / "dir" / "b.txt", source / "dir" / name)
    options = ["--ignore", "*.log"]
    assert run("sync", str(source), str(target), *options, env=env).returncode == 0
    shutil.rmtree(target / "dir")
    done = run("pull", str(source), str(target), named, "--json", *options, env=env)
    answer = json.loads(done.stdout)
    assert (done.returncode, [each["path"] for each in answer["problems"]]) == (3, ["dir"])
    assert {each["path"] for each in answer["pulled"]} == {"dir/b.txt", "dir/link", "dir/other link"}
    assert os.listdir(source / "dir") == ["kept.log"]


def test_a_pull_where_the_names_are_not_ascii_and_the_locale_is(place: Place) -> None:
    source, target, home = place
    env = environment(home, LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")
    (source / "ümlaut").write_text("u")
    assert run("sync", str(source), str(target), env=env).returncode == 0
    for more in ((), ("--json",)):
        (target / "ümlaut").write_text(f"edited {more}")
        done = run("pull", str(source), str(target), "ümlaut", *more, env=env)
        assert (done.returncode, done.stderr) == (0, "")
        assert (source / "ümlaut").read_text() == f"edited {more}"
        assert run("sync", str(source), str(target), env=env).returncode == 0
    assert "/ümlaut" in json.loads(done.stdout)["set_aside"][0]["kept"]


def test_why_there_is_nothing_to_pull_is_said(place: Place) -> None:
    source, target, home = place
    env = environment(home)
    (source / ".syncdignore").write_text("*.log\n")
    (source / "over").mkdir()
    assert run("sync", str(source), str(target), "--overlay", "over", env=env).returncode == 0
    (target / "x.log").touch()
    shutil.rmtree(target / "dir")
    paths = ["x.log", "over/x", "nosuch", "dir/b.txt", "a.txt"]
    done = run("pull", str(source), str(target), *paths, "--overlay", "over", env=env)
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.splitlines() == [
        "nothing to pull at x.log: a rule leaves it out (.syncdignore:1: *.log)",
        "nothing to pull at over/x: the overlay over is never touched",
        "nothing to pull at nosuch: it is on neither side",
        "nothing to pull at dir/b.txt: the target lacks dir, which holds it: name that",
        "nothing to pull at a.txt: both sides hold the same",
    ]


@needs_root
def test_what_lies_on_another_mount_than_the_source_is_not_pulled(place: Place) -> None:
    source, target, home = place
    env = environment(home)
    with tmpfs(source / "m"):
        (source / "m" / "f").write_text("mounted")
        assert run("sync", str(source), str(target), env=env).returncode == 0
        (target / "m" / "f").write_text("the container's")
        (target / "m" / "new").write_text("made")
        done = run("pull", str(source), str(target), ".", env=env)
        assert (done.returncode, done.stdout) == (3, "pulled  m/new\n"), done.stderr
        assert (
            "m/f: it lies on another mount than the source, so it cannot be set aside; copy it by hand" in done.stderr
        )
        assert (source / "m" / "f").read_text() == "mounted"
        assert (source / "m" / "new").read_text() == "made"


@needs_root
def test_a_pull_into_a_source_that_cannot_be_written_says_so(place: Place) -> None:
    source, target, home = place
    env = environment(home)
    with mounted(source / "m", "--bind", source):
        assert run("sync", str(source / "m"), str(target), env=env).returncode == 0
        (target / "a.txt").write_text("the container's")
        call("mount", "-o", "remount,bind,ro", source / "m")
        done = run("pull", str(source / "m"), str(target), "a.txt", env=env)
        assert (done.returncode, "make it or the directory above it writable" in done.stderr) == (1, True), done.stderr
    assert (source / "a.txt").read_text() == "a"


def test_a_pull_from_a_target_that_was_never_mirrored_is_refused_after_a_refused_meeting_too(
    place: Place, tmp_path: Path
) -> None:
    source, target, home = place
    env = environment(home)
    other = tmp_path / "other"
    other.mkdir()
    (other / "a.txt").write_text("another")
    (other / "own").write_text("mine")
    assert run("sync", str(source), str(target), env=env).returncode == 0
    assert run("pull", str(other), str(target), ".", "--force", env=env).returncode == 5
    known = sorted((home / "state" / "syncd").iterdir())
    assert len(known) == 1, "a refused pull makes no pair known"
    assert run("sync", str(other), str(target), env=env).returncode == 5
    done = run("pull", str(other), str(target), ".", "--force", env=env)
    assert (done.returncode, "is not the directory" in done.stderr) == (5, True), done.stderr
    assert {path.name: path.read_text() for path in other.iterdir()} == {"a.txt": "another", "own": "mine"}


def test_a_dry_run_of_a_pull_lets_a_directory_be_replaced_with_all_it_holds(place: Place) -> None:
    source, target, home = place
    env = environment(home)
    (source / "d" / "d").mkdir(parents=True)
    (source / "d" / "d" / "a").write_text("1")
    (source / "d" / "d" / "x.log").write_text("ignored")
    rules = ("--ignore", "*.log")
    assert run("sync", str(source), str(target), *rules, env=env).returncode == 0
    shutil.rmtree(target / "d")
    (target / "d").write_text("a file")
    missing = run("pull", str(source), str(target), "d/d/a", *rules, env=env)
    assert "something else than a directory at d" in missing.stderr
    shown = run("pull", str(source), str(target), ".", *rules, "--dry-run", "--json", env=env)
    done = run("pull", str(source), str(target), ".", *rules, "--json", env=env)
    assert (shown.returncode, done.returncode) == (0, 0), shown.stderr + done.stderr
    assert json.loads(shown.stdout)["pulled"] == json.loads(done.stdout)["pulled"]
