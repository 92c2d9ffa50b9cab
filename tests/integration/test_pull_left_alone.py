"""What a pull leaves alone: what could not be read is not absent, and what cannot be mirrored was not removed."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from tests.compare import read_tree
from tests.integration.conftest import Place
from tests.integration.watching import environment, run, without_rights
from tests.machine import call, needs_root

pytestmark = pytest.mark.kernel

needs_setpriv = pytest.mark.skipif(
    os.geteuid() == 0 and shutil.which("setpriv") is None, reason="needs setpriv to drop root"
)
FORCE = pytest.mark.parametrize("force", [(), ("--force",)])


def pull(
    place: Place, *arguments: str, prefix: list[str] | None = None
) -> tuple[int, dict[str, set[str]], subprocess.CompletedProcess[str]]:
    """The exit code, the paths by what became of them, and all that was said."""
    env = environment(place.home)
    done = run("pull", str(place.source), str(place.target), "--json", *arguments, env=env, prefix=prefix or [])
    answer = json.loads(done.stdout)
    found = {key: {each["path"] for each in answer[key]} for key in ("pulled", "problems", "set_aside")}
    assert not found["pulled"] & found["problems"]
    return done.returncode, found, done


def synced(place: Place, *arguments: str) -> None:
    done = run("sync", str(place.source), str(place.target), *arguments, env=environment(place.home))
    assert done.returncode == 0, done.stderr


@needs_root
@FORCE
@pytest.mark.parametrize("named", [".", "m", "m/f"])
def test_nothing_is_pulled_below_a_mount_that_is_gone(place: Place, named: str, force: tuple[str, ...]) -> None:
    """The directory beneath holds other files by the same names."""
    source, target, _ = place
    point = source / "m"
    point.mkdir()
    call("mount", "-t", "tmpfs", "syncd-test-m", point)
    try:
        for name in ("f", "g"):
            (point / name).write_text(f"mounted {name}")
        synced(place)
    finally:
        call("umount", point)
    (point / "f").write_text("only copy")
    (target / "m" / "f").unlink()
    (target / "m" / "g").write_text("edited")
    (target / "m" / "new").write_text("made")
    (target / "a.txt").write_text("the container's")
    code, found, done = pull(place, named, *force)
    assert (code, found["problems"]) == (3, {"m"}), done.stderr
    assert read_tree(point).keys() == {b"f"}
    assert (point / "f").read_text() == "only copy"
    assert found["pulled"] == ({"a.txt"} if named == "." else set())
    assert (source / "a.txt").read_text() == ("the container's" if named == "." else "a")


@needs_setpriv
@FORCE
@pytest.mark.parametrize("how", ["edited", "removed", "its directory removed", "its directory replaced"])
def test_a_source_file_that_cannot_be_read_stays(place: Place, how: str, force: tuple[str, ...]) -> None:
    source, target, _ = place
    (source / "dir" / "other").write_text("readable")
    synced(place)
    secret = source / "dir" / "b.txt"
    secret.write_text("c")  # of the size that was mirrored
    secret.chmod(0)
    if how == "edited":
        (target / "dir" / "b.txt").write_text("the container's")
    elif how == "removed":
        (target / "dir" / "b.txt").unlink()
    else:
        shutil.rmtree(target / "dir")
        if how == "its directory replaced":
            (target / "dir").write_text("a file by now")
    (target / "a.txt").write_text("the container's")
    code, found, done = pull(place, ".", *force, prefix=without_rights())
    assert (code, "EACCES" in done.stdout) == (3, True), done.stdout
    secret.chmod(0o600)
    assert secret.read_text() == "c"
    assert "dir/b.txt" in found["problems"]
    assert "a.txt" in found["pulled"]
    assert ("dir/other" in found["pulled"]) == how.startswith("its directory")
    assert (source / "dir" / "other").exists() != how.startswith("its directory")
    assert (source / "a.txt").read_text() == "the container's"


@needs_setpriv
@FORCE
def test_below_a_source_directory_that_cannot_be_read_nothing_is_touched(place: Place, force: tuple[str, ...]) -> None:
    source, target, _ = place
    synced(place)
    shutil.rmtree(target / "dir")
    (source / "dir").chmod(0)
    try:
        code, found, _ = pull(place, ".", *force, prefix=without_rights())
    finally:
        (source / "dir").chmod(0o755)
    assert (code, found["problems"], found["pulled"]) == (3, {"dir"}, set())
    assert (source / "dir" / "b.txt").read_text() == "b"


@needs_setpriv
@FORCE
def test_an_unreadable_file_takes_no_directory_away(place: Place, force: tuple[str, ...]) -> None:
    source, target, _ = place
    synced(place)
    shutil.rmtree(target / "dir")
    (target / "dir").write_text("nobody reads it")
    (target / "dir").chmod(0)
    code, found, done = pull(place, ".", *force, prefix=without_rights())
    assert (code, found["problems"], found["pulled"]) == (3, {"dir"}, set()), done.stderr
    assert (source / "dir" / "b.txt").read_text() == "b"


@FORCE
@pytest.mark.parametrize("named", [".", "a.txt"])
def test_a_fifo_in_the_target_is_no_removal(place: Place, named: str, force: tuple[str, ...]) -> None:
    source, target, _ = place
    synced(place)
    for path in ("a.txt", "dir/b.txt"):
        (target / path).unlink()
        os.mkfifo(target / path)
    code, found, done = pull(place, named, *force)
    assert (code, "the target holds a FIFO" in done.stdout) == (3, True), done.stdout
    assert found["problems"] == ({"a.txt", "dir/b.txt"} if named == "." else {"a.txt"})
    assert found["pulled"] == found["set_aside"] == set()
    assert ((source / "a.txt").read_text(), (source / "dir" / "b.txt").read_text()) == ("a", "b")


def test_a_fifo_in_place_of_a_directory_is_no_removal(place: Place) -> None:
    source, target, _ = place
    synced(place)
    shutil.rmtree(target / "dir")
    os.mkfifo(target / "dir")
    code, found, _ = pull(place, ".")
    assert (code, found["problems"], found["pulled"]) == (3, {"dir"}, set())
    assert (source / "dir" / "b.txt").read_text() == "b"


def test_a_fifo_that_the_container_made_is_told_where_it_was_named(place: Place) -> None:
    source, target, _ = place
    synced(place)
    os.mkfifo(target / "made")
    (target / "a.txt").write_text("the container's")
    code, found, done = pull(place, "made")
    assert (code, "made: the target holds a FIFO" in done.stderr) == (0, True), done.stderr
    code, found, done = pull(place, ".")
    assert (code, found["pulled"], done.stderr) == (0, {"a.txt"}, "")
    assert not (source / "made").exists()


@FORCE
def test_a_removed_directory_stays_for_the_fifo_in_the_source(place: Place, force: tuple[str, ...]) -> None:
    source, target, _ = place
    os.mkfifo(source / "dir" / "pipe")
    synced(place)
    shutil.rmtree(target / "dir")
    code, found, _ = pull(place, ".", *force)
    assert (code, found["problems"], found["pulled"]) == (3, {"dir"}, {"dir/b.txt"})
    assert stat.S_ISFIFO((source / "dir" / "pipe").stat().st_mode)


def test_over_a_directory_with_a_fifo_in_the_source_only_by_force(place: Place) -> None:
    source, target, home = place
    os.mkfifo(source / "dir" / "pipe")
    synced(place)
    shutil.rmtree(target / "dir")
    (target / "dir").write_text("a file by now")
    done = run("pull", str(source), str(target), ".", env=environment(home))
    assert (done.returncode, "the source holds a FIFO" in done.stderr) == (5, True), done.stderr
    assert (source / "dir" / "b.txt").read_text() == "b"
    assert pull(place, ".", "--force")[0] == 0
    assert (source / "dir").read_text() == "a file by now"
    assert [path.name for path in home.rglob("dir/pipe")] == ["pipe"]


def test_a_file_of_the_source_does_not_go_for_what_is_named_below_it(place: Place) -> None:
    source, target, home = place
    synced(place)
    (target / "a.txt").unlink()
    (target / "a.txt").mkdir()
    (target / "a.txt" / "made").write_text("the container's")
    (source / "a.txt").write_text("the host's")
    done = run("pull", str(source), str(target), "a.txt/made", env=environment(home))
    assert (done.returncode, "the source changed there" in done.stderr) == (5, True), done.stderr
    assert (source / "a.txt").read_text() == "the host's"


@needs_setpriv
@pytest.mark.parametrize("force", [(), ("--force",)])
def test_a_dry_run_foretells_what_cannot_be_pulled(place: Place, force: tuple[str, ...]) -> None:
    source, target, _ = place
    for path in ("old/deep/kept.log", "old/deep/file", "old/file", "gone/file", "was/kept/file"):
        (source / path).parent.mkdir(parents=True, exist_ok=True)
        (source / path).write_text(path)
    options = ["--ignore", "*.log", "--overlay", "was/kept"]
    synced(place, *options)
    for name in ("old", "gone", "was"):
        shutil.rmtree(target / name)
    (target / "was").write_text("a file by now")
    (target / "secret").write_text("nobody reads it")
    (target / "secret").chmod(0)
    (target / "a.txt").write_text("the container's")
    before = read_tree(source)
    code, told, _ = pull(place, ".", "--dry-run", *options, *force, prefix=without_rights())
    assert read_tree(source) == before
    assert (code, told["problems"]) == (3, {"old", "old/deep", "was", "secret"})
    done = pull(place, ".", *options, *force, prefix=without_rights())
    assert done[0] == 3
    assert {key: done[1][key] for key in ("pulled", "problems")} == {key: told[key] for key in ("pulled", "problems")}
    assert (source / "old" / "deep" / "kept.log").exists()
    assert (source / "was" / "kept" / "file").exists()
    assert not Path(source / "secret").exists()
