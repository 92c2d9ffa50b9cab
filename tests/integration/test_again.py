"""A second run over the same paths: what of the first one still holds, and what must not be taken for it."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from tests.compare import assert_equal, read_tree
from tests.integration.conftest import Place
from tests.integration.watching import environment, run, watching, without_rights
from tests.machine import eventually, needs_root, tmpfs

pytestmark = pytest.mark.kernel

PUTS = ["put  a.txt", "put  dir", "put  dir/b.txt"]


def sync(place: Place, *options: str) -> tuple[int, str]:
    done = run("sync", str(place.source), str(place.target), *options, env=environment(place.home))
    return done.returncode, done.stderr


@pytest.mark.parametrize("made", [True, False])
def test_a_target_made_anew_is_filled(place: Place, made: bool) -> None:
    """Many filesystems give its directory the inode that the removed one had."""
    for _ in range(5):
        assert sync(place)[0] == 0
        assert_equal(place.source, place.target)
        shutil.rmtree(place.target)
        if made:
            place.target.mkdir()


@needs_root
def test_another_filesystem_at_the_target_is_filled(place: Place) -> None:
    place.target.mkdir(exist_ok=True)
    for _ in range(2):
        with tmpfs(place.target):
            code, said = sync(place)
            assert code == 0, said
            assert_equal(place.source, place.target, leave_out=(b".syncd",))


@pytest.mark.parametrize("removed", [True, False])
def test_another_source_that_lacks_entries_halts(place: Place, removed: bool) -> None:
    for number in range(120):
        (place.source / f"f{number}").write_bytes(b"%d" % number)
    assert sync(place)[0] == 0
    before = read_tree(place.target)
    if removed:
        shutil.rmtree(place.source)
    else:
        place.source.rename(place.source.with_name("moved"))
    place.source.mkdir()
    (place.source / "new").write_bytes(b"new")
    code, said = sync(place)
    assert code == 5
    assert "another directory than before" in said
    assert read_tree(place.target) == before
    identity = said.split("approve ")[1].split()[0]
    assert sync(place, "--approve", identity)[0] == 0
    assert_equal(place.source, place.target)
    code, said = sync(place)
    assert (code, "another directory" in said) == (0, False), "it is the one that is known now"


def test_an_approval_of_nothing_is_said_and_is_no_leave_for_later(place: Place) -> None:
    for number in range(120):
        (place.source / f"f{number}").write_bytes(b"%d" % number)
    assert sync(place)[0] == 0
    shutil.rmtree(place.source)
    place.source.mkdir()
    identity = sync(place)[1].split("approve ")[1].split()[0]
    place.source.rmdir()
    shutil.copytree(place.target, place.source)
    with watching(*place, "--approve", identity) as watch:
        assert any(identity in note for note in watch.reports[0]["notes"])
        for path in place.source.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        eventually(lambda: watch.status()["halt"], "it was approved after all")
        assert (place.target / "f1").exists()
        waiting = watch.status()["halt"]["id"]
        code, said = sync(place, "--approve", "0" * len(waiting))
        assert (code, waiting in said) == (2, True)
        assert sync(place, "--approve", waiting)[0] == 0
        assert list(place.target.iterdir()) == []


def test_another_source_that_holds_as_much_is_taken(place: Place) -> None:
    assert sync(place)[0] == 0
    place.source.rename(place.source.with_name("moved"))
    shutil.copytree(place.source.with_name("moved"), place.source, symlinks=True)
    (place.source / "new").write_bytes(b"new")
    code, said = sync(place)
    assert code == 0, said
    assert_equal(place.source, place.target)


def test_modes_and_times_of_hard_links_are_flushed(place: Place) -> None:
    (place.source / "one").write_bytes(b"one")
    (place.source / "two").hardlink_to(place.source / "one")
    with watching(*place) as watch:
        (place.source / "one").chmod(0o600)
        assert watch.run("flush").returncode == 0
        assert_equal(place.source, place.target)
        (place.source / "two").touch()
        assert watch.run("flush").returncode == 0
        assert_equal(place.source, place.target)


def test_a_dry_run_into_a_target_that_is_not_there_touches_nothing(place: Place) -> None:
    shutil.rmtree(place.target, ignore_errors=True)
    for command in ("sync", "watch"):
        done = run(command, str(place.source), str(place.target), "--dry-run", env=environment(place.home))
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines() == PUTS
    assert not place.target.exists()
    assert not list(Path(place.home).rglob("baseline*"))
    assert sync(place)[0] == 0
    shutil.rmtree(place.target)
    done = run("sync", str(place.source), str(place.target), "--dry-run", env=environment(place.home))
    assert done.stdout.splitlines() == PUTS, "what it would do, not what it knows of the target that is gone"


@pytest.mark.parametrize("timeout", ["nan", "inf", "-1", "soon"])
def test_a_flush_wants_a_time(place: Place, timeout: str) -> None:
    done = run("flush", str(place.source), str(place.target), "--timeout", timeout, env=environment(place.home))
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_to_pull_nothing_is_said(place: Place) -> None:
    assert sync(place)[0] == 0
    done = run("pull", str(place.source), str(place.target), "nosuch", env=environment(place.home))
    assert (done.returncode, done.stdout) == (0, "")
    assert "nothing to pull at nosuch" in done.stderr


def test_a_watch_that_syncs_for_another_command_says_that_it_uses_its_own_options(place: Place) -> None:
    with watching(*place) as watch:
        for options, told in ((), False), (("--drift", "mirror"), True):
            done = watch.run("sync", *options)
            assert done.returncode == 0
            assert ("own options" in done.stderr) == told


def test_what_a_pull_set_aside_is_listed(place: Place) -> None:
    assert sync(place)[0] == 0
    (place.target / "a.txt").write_text("theirs")
    env = environment(place.home)
    pulled = run("pull", str(place.source), str(place.target), "a.txt", env=env)
    assert pulled.returncode == 0, pulled.stderr
    assert (place.source / "a.txt").read_text() == "theirs"
    listed = run("drift", str(place.source), str(place.target), env=env)
    assert "set aside  a.txt" in listed.stdout
    kept = Path(listed.stdout.split("(")[1].split(")")[0]) / "a.txt"
    assert kept.read_text() == "a"


def test_one_run_looks_again_at_what_changed_under_it(place: Place) -> None:
    """Setting the container's link aside gives the file another time, which is not what was seen there."""
    (place.source / "last").write_text("comes after the link")
    assert sync(place)[0] == 0
    (place.target / "dir" / "link").hardlink_to(place.target / "last")
    done = run("sync", str(place.source), str(place.target), "--drift", "mirror", "--json", env=environment(place.home))
    record = json.loads(done.stdout)
    assert (done.returncode, record["in_sync"], len(record["set_aside"])) == (0, True, 1), done.stderr
    assert_equal(place.source, place.target)


@pytest.mark.skipif(os.geteuid() == 0 and shutil.which("setpriv") is None, reason="needs setpriv to drop root")
def test_a_directory_that_nobody_may_write_gets_what_it_holds(place: Place) -> None:
    """Also for root without the right to pass over modes, as in many containers."""
    pair, env = (str(place.source), str(place.target)), environment(place.home)
    shut = place.source / "dir"
    try:
        for text in ("first", "second"):
            shut.chmod(0o755)
            (shut / "b.txt").write_text(text)
            (shut / text).write_text("new")
            shut.chmod(0o555)
            done = run("sync", *pair, env=env, prefix=without_rights())
            assert done.returncode == 0, done.stderr
            assert_equal(place.source, place.target)
    finally:
        shut.chmod(0o755)
        (place.target / "dir").chmod(0o755)
