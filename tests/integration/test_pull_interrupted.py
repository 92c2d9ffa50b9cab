"""A pull that is interrupted: it ends in order, and what it says is what it did."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.compare import read_tree
from tests.integration.conftest import Place
from tests.integration.watching import LIMIT, SYNCD, environment, run

pytestmark = pytest.mark.kernel

MANY = 4_100  # three slices


def interrupted(place: Place, number: int, *arguments: str) -> tuple[int, str, str]:
    """Pull everything; the signal comes when some files came back."""
    pull = subprocess.Popen(
        [*SYNCD, "pull", str(place.source), str(place.target), ".", *arguments],
        env=environment(place.home, SYNCD_CRASH_AT="publish-renamed:20:stop"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.waitpid(pull.pid, os.WUNTRACED)
    pull.send_signal(number)
    pull.send_signal(signal.SIGCONT)
    told, errors = pull.communicate(timeout=LIMIT)
    return pull.returncode, told, errors


def test_an_interrupted_pull_lists_what_came_back(place: Place) -> None:
    source, target, home = place
    env = environment(home)
    names = [f"f{count:05}" for count in range(MANY)]
    for name in names:
        (source / name).write_text("o")
    (target / "made").mkdir(parents=True)  # the last of the slices would give it its mode
    (target / "made" / "file").touch()
    (target / "made").chmod(0o500)
    assert run("sync", str(source), str(target), env=env).returncode == 0
    for name in names:
        (target / name).write_text("new")
    code, told, errors = interrupted(place, signal.SIGTERM, "--json")
    assert (code, errors) == (130, "syncd: interrupted; what came back so far is listed, and the rest is as it was\n")
    answer = json.loads(told)
    assert (answer["interrupted"], answer["problems"]) == (True, [])
    pulled = {each["path"] for each in answer["pulled"] if each["path"].startswith("f")}
    assert 0 < len(pulled) < MANY
    assert {name for name in names if (source / name).read_text() == "new"} == pulled
    kept = {each["path"]: Path(each["kept"]).read_text() for each in answer["set_aside"]}
    assert kept == dict.fromkeys(pulled, "o")
    assert (source / "made").stat().st_mode & 0o777 == 0o500
    assert not [name for path in home.rglob("pull/staging") for name in os.listdir(path) if name.startswith("new-")]
    again = run("pull", str(source), str(target), ".", "--json", env=env)
    answer = json.loads(again.stdout)
    assert (again.returncode, answer["interrupted"]) == (0, False), again.stderr
    assert {each["path"] for each in answer["pulled"]} >= set(names) - pulled
    assert read_tree(source) == read_tree(target)


def test_the_lines_of_an_interrupted_pull(place: Place) -> None:
    source, target, home = place
    names = [f"f{count:05}" for count in range(MANY)]
    for name in names:
        (source / name).write_text("o")
    assert run("sync", str(source), str(target), env=environment(home)).returncode == 0
    for name in names:
        (target / name).write_text("new")
    code, told, _ = interrupted(place, signal.SIGINT)
    assert code == 130
    pulled = {line.split()[-1] for line in told.splitlines() if line.startswith("pulled")}
    assert {name for name in names if (source / name).read_text() == "new"} == pulled
    assert len([line for line in told.splitlines() if line.startswith("set aside")]) == len(pulled)


def test_a_second_signal_ends_a_pull_at_once(tmp_path: Path) -> None:
    """Also in the middle of one long step, which does not look whether it was cancelled."""
    script = """
import time
from syncd.cli.pull_cmd import _until_end
from syncd.kernel.choose import load
control = load().control()
def work():
    print("ready", flush=True)
    while not control.cancelled: time.sleep(0.001)
    print("cancelled", flush=True)
    time.sleep(600)
_until_end(control, work)
"""
    done = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert done.stdout is not None
    for word in ("ready\n", "cancelled\n"):
        assert done.stdout.readline() == word
        done.send_signal(signal.SIGINT)
    assert done.wait(LIMIT) == 130
    done.stdout.close()
