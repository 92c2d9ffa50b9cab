"""Commands that look at a pair go by the rules of the watch that runs on it."""

from __future__ import annotations

import json
import os
import shutil
import signal

import pytest

from tests.compare import read_tree
from tests.integration.conftest import Place
from tests.integration.watching import environment, run, watching, without_rights

pytestmark = [pytest.mark.kernel, pytest.mark.loop]


@pytest.fixture
def rules(place: Place) -> list[str]:
    """Options of each kind, and what they leave out."""
    given = place.source.parent / "rules"
    given.write_text("from-file\n")
    for name in ("x.log", "from-file", "from-git", "own/in"):
        (place.source / name).parent.mkdir(exist_ok=True)
        (place.source / name).write_text(name)
    (place.source / ".gitignore").write_text("from-git\n")
    return ["--ignore", "*.log", "--ignore-from", str(given), "--overlay", "own", "--gitignore"]


@pytest.mark.parametrize("command", ["verify", "diff", "drift"])
def test_they_find_nothing_amiss(place: Place, rules: list[str], command: str) -> None:
    with watching(*place, *rules) as watch:
        assert watch.flush() == 0
        done = watch.run(command)
        assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr
        other = watch.run(command, "--ignore", "*.log")
        assert "other rules; those given here are used" in other.stderr
        same = watch.run(command, *rules)
        assert "other rules" not in same.stderr
        assert watch.run("sync", "--dry-run").stdout == ""


def test_explain_names_the_rule(place: Place, rules: list[str]) -> None:
    with watching(*place, *rules) as watch:
        for path, source in [("x.log", "--ignore"), ("own/in", "overlay"), ("from-git", ".gitignore")]:
            text = watch.run("explain", path).stdout
            assert "left out by" in text
            assert source in text
        answer = json.loads(watch.run("explain", "a.txt", "--json").stdout)
        assert answer["rule"] is None


@pytest.mark.skipif(os.geteuid() == 0 and shutil.which("setpriv") is None, reason="needs setpriv to drop root")
def test_explain_says_what_this_user_may_not_read(place: Place) -> None:
    """Also of a file that was never mirrored."""
    (place.source / "a.txt").chmod(0)
    pair, env = (str(place.source), str(place.target)), environment(place.home)
    done = run("explain", *pair, "a.txt", env=env, prefix=without_rights())
    assert (done.returncode, "unknown: a.txt: read failed on the source (EACCES)" in done.stdout) == (0, True), done
    assert "unknown" not in run("explain", *pair, "dir/b.txt", env=env, prefix=without_rights()).stdout


def test_a_pull_leaves_an_overlay_alone(place: Place, rules: list[str]) -> None:
    with watching(*place, *rules) as watch:
        (place.target / "own").mkdir()
        (place.target / "own" / "in").write_text("the image's")
        assert watch.run("pull", ".").returncode == 0
        assert (place.source / "own" / "in").read_text() == "own/in"
        assert (place.source / "x.log").exists()


@pytest.mark.parametrize("silent", ["stopped", "unseen"])
def test_where_a_watch_does_not_tell_them_nothing_is_pulled(place: Place, rules: list[str], silent: str) -> None:
    source, target, home = place
    pair = str(source), str(target)
    with watching(*place, *rules) as watch:
        (target / "own").mkdir()
        (target / "own" / "in").write_text("the image's")
        env = watch.env
        if silent == "stopped":
            watch.process.send_signal(signal.SIGSTOP)
        else:
            env = environment(home / "other") | {"XDG_STATE_HOME": env["XDG_STATE_HOME"]}
        before = read_tree(source)
        done = run("pull", *pair, ".", env=env)
        assert (done.returncode, "does not tell its rules" in done.stderr) == (5, True), done.stderr
        assert read_tree(source) == before
        assert "does not tell its rules" in run("diff", *pair, env=env).stderr
        assert run("pull", *pair, ".", *rules, env=env).returncode == 0
        assert read_tree(source) == before
