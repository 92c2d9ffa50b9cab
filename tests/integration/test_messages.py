"""What stands in the way is named, with what to do about it; never a traceback."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.integration.conftest import Place
from tests.integration.watching import SYNCD, environment, run, without_rights
from tests.machine import call, needs_root, tmpfs

pytestmark = pytest.mark.kernel


def test_a_current_directory_that_is_gone(place: Place) -> None:
    gone = place.home / "gone"
    gone.mkdir(parents=True)
    command = ["sh", "-c", 'cd "$1" && rmdir "$1" && shift && exec "$@"', "sh", str(gone), *SYNCD, "sync", "a", "b"]
    done = subprocess.run(command, env=environment(place.home), capture_output=True, text=True, check=False)
    assert (done.returncode, "the current directory was removed" in done.stderr) == (1, True), done.stderr


def test_a_state_directory_that_cannot_be_made(place: Place) -> None:
    env = environment(place.home, XDG_STATE_HOME="/proc/nope")
    done = run("sync", str(place.source), str(place.target), env=env)
    assert done.returncode == 1
    assert "XDG_STATE_HOME" in done.stderr
    assert "/proc/nope/syncd" in done.stderr


@needs_root
def test_a_state_directory_that_is_full(place: Place) -> None:
    for number in range(3000):
        (place.source / f"f{number}").write_bytes(b"%d" % number)
    state = place.home / "state"
    state.mkdir(parents=True)
    with tmpfs(state, "256k"):
        done = run("sync", str(place.source), str(place.target), env=environment(place.home))
        assert done.returncode == 1, done.stderr
        assert str(state) in done.stderr
        assert "Traceback" not in done.stderr
    done = run("sync", str(place.source), str(place.target), env=environment(place.home))
    assert done.returncode == 0, done.stderr
    assert sorted(os.listdir(place.target)) == sorted(os.listdir(place.source))


@needs_root
def test_doctor_names_what_would_stand_in_the_way(place: Place) -> None:
    env = environment(place.home)
    done = run("doctor", str(place.source / "nope"), str(place.source / "a.txt"), env=env)
    assert "nope is not there" in done.stdout
    assert "a.txt is no directory" in done.stdout
    place.target.mkdir()
    with tmpfs(place.target):
        call("mount", "-o", "remount,ro", place.target)
        done = run("doctor", str(place.source), str(place.target), env=env)
        assert f"warning: target: {place.target} cannot be written" in done.stdout
    done = run("doctor", str(place.source), str(place.target), env=env)
    assert "warning" not in done.stdout.replace("warning: the pure kernel", ""), done.stdout
    assert "{" not in done.stdout


@pytest.mark.parametrize("command", ["explain", "drift", "verify", "diff"])
def test_a_target_that_is_not_there(place: Place, command: str) -> None:
    env = environment(place.home)
    assert run("sync", str(place.source), str(place.target), env=env).returncode == 0
    place.target.rename(place.target.with_name("away"))
    path = ["a.txt"] if command == "explain" else []
    done = run(command, str(place.source), str(place.target), *path, env=env)
    assert done.returncode in (0, 3), done.stderr
    assert "No such file" not in done.stderr


@pytest.mark.skipif(os.geteuid() == 0 and shutil.which("setpriv") is None, reason="needs setpriv to drop root")
@pytest.mark.parametrize("command", ["drift", "verify", "diff", "sync"])
@pytest.mark.parametrize("name", ["source", "target"])
def test_a_root_that_cannot_be_read(place: Place, command: str, name: str) -> None:
    root: Path = getattr(place, name)
    root.mkdir(exist_ok=True)
    root.chmod(0)
    done = run(command, str(place.source), str(place.target), env=environment(place.home), prefix=without_rights())
    assert done.returncode == (2 if name == "source" else 1)
    wanted = f"{root}: Permission denied" if (command, name) == ("sync", "target") else f"{root} cannot be read; give"
    assert wanted in done.stderr
    assert done.stderr.count("\n") == 1
