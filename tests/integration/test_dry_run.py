"""What `diff` and a dry run say, and what a run then does."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from tests.compare import read_tree
from tests.integration.conftest import Place
from tests.integration.watching import environment, run, watching, without_rights
from tests.machine import eventually

pytestmark = pytest.mark.kernel


def dry(place: Place, *options: str) -> tuple[set[str], str]:
    """The lines and the sum of a dry run that touches nothing."""
    before = read_tree(place.target) if place.target.exists() else None
    done = run("sync", str(place.source), str(place.target), "--dry-run", *options, env=environment(place.home))
    assert done.returncode == 0, done.stderr
    assert (read_tree(place.target) if place.target.exists() else None) == before
    return set(done.stdout.splitlines()), done.stderr


def sync(place: Place, *options: str) -> tuple[int, dict, str]:
    done = run("sync", str(place.source), str(place.target), "--json", *options, env=environment(place.home))
    return done.returncode, json.loads(done.stdout or "{}"), done.stderr


def drifted(place: Place) -> None:
    assert sync(place)[0] == 0
    (place.target / "a.txt").write_text("the container's")
    (place.target / "dir" / "b.txt").unlink()
    (place.target / "own").write_text("made")


def test_drift_is_kept_or_mirrored_as_the_policy_says(place: Place) -> None:
    drifted(place)
    lines, told = dry(place)
    assert lines == {"drift: edited  a.txt", "drift: lost  dir/b.txt", "drift: made  own"}
    assert told.startswith("0 put, 0 remove, 0 set aside and put, 0 cannot read; 3 drifted")
    lines, told = dry(place, "--drift", "mirror")
    assert lines == {"set aside and put  a.txt", "put  dir/b.txt", "set aside  own"}
    assert told.startswith("1 put, 0 remove, 1 set aside and put, 0 cannot read, 1 set aside; 0 drifted")
    code, record, _ = sync(place, "--drift", "mirror")
    assert (code, record["put"], record["removed"], len(record["set_aside"])) == (0, 2, 1, 2)


def test_a_mode_that_is_behind_is_named(place: Place) -> None:
    assert sync(place)[0] == 0
    (place.target / "a.txt").chmod(0o600)
    (place.target / "dir").chmod(0o700)
    os.utime(place.target / "dir" / "b.txt", (1, 1))
    assert dry(place)[0] == {f"set mode or time  {path}" for path in ("a.txt", "dir", "dir/b.txt")}
    assert sync(place)[0] == 0
    assert dry(place)[0] == set()
    assert read_tree(place.source) == read_tree(place.target)


def test_a_halt_is_foretold(place: Place) -> None:
    assert sync(place)[0] == 0
    shutil.rmtree(place.source / "dir")
    (place.source / "a.txt").unlink()
    lines, told = dry(place)
    assert lines == {"remove  a.txt", "remove  dir", "remove  dir/b.txt"}
    assert "would do nothing of that: halted: the source is empty" in told
    shown = run("diff", str(place.source), str(place.target), "--json", env=environment(place.home))
    code, record, stderr = sync(place)
    assert json.loads(shown.stdout)["halt"] == record["halt"]
    identity = record["halt"]["id"]
    assert code == 5
    assert stderr.count("halted") == 1
    assert f"syncd sync SOURCE TARGET --approve {identity}" in stderr
    assert sync(place, "--approve", identity)[0] == 0
    assert list(place.target.iterdir()) == []


def test_a_first_meeting_is_foretold(place: Place) -> None:
    place.target.mkdir()
    (place.target / "a.txt").write_text("somebody's")
    lines, told = dry(place)
    assert "set aside and put  a.txt" in lines
    assert "first meeting" in told
    assert sync(place)[0] == 5
    assert "first meeting" not in dry(place, "--adopt")[1]
    assert sync(place, "--adopt")[0] == 0


def test_swapped_roots_are_foretold(place: Place) -> None:
    assert sync(place)[0] == 0
    turned = Place(place.target, place.source, place.home)
    assert "were they swapped" in dry(turned)[1]
    assert sync(turned)[0] == 5
    assert "swapped" not in dry(turned, "--adopt")[1]


def test_a_target_of_somebody_else_is_foretold(place: Place, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = Place(tmp_path / "other", place.target, place.home)
    with watching(*place) as watch:
        assert f"already written by process {watch.process.pid}" in dry(other)[1]
        assert sync(other)[0] == 5
        assert "would do nothing" not in dry(place)[1]


def test_beside_a_watch_its_own_options_write(place: Place) -> None:
    with watching(*place) as watch:
        for options in ["--drift", "mirror"], ["--write", "replace"], ["--guard", "roots"], ["--adopt"]:
            assert "a cycle writes with its options" in dry(place, *options)[1]
        assert "its options" not in dry(place)[1]
        shutil.rmtree(place.source / "dir")
        (place.source / "a.txt").unlink()
        identity = watch.until("halt")["halt"]["id"]
        assert f"run: syncd approve {identity} TARGET (" in dry(place)[1]
        assert run("approve", identity, str(place.target), env=watch.env).returncode == 0
    assert "its options" not in dry(place, "--drift", "mirror")[1]


@pytest.mark.skipif(os.geteuid() == 0 and shutil.which("setpriv") is None, reason="needs setpriv to drop root")
def test_what_a_run_opens_first_is_foretold(place: Place) -> None:
    """A directory that the mirror itself has shut, as the source was."""
    env, pair, prefix = environment(place.home), (str(place.source), str(place.target)), without_rights()
    with watching(*place, prefix=prefix):
        (place.source / "dir").chmod(0)
        eventually(lambda: (place.target / "dir").stat().st_mode & 0o777 == 0, "its mode is not mirrored")
    (place.source / "dir").chmod(0o755)
    (place.source / "dir" / "b.txt").write_text("new")
    shown = run("sync", *pair, "--dry-run", env=env, prefix=prefix)
    assert (shown.returncode, "look into them: dir\n" in shown.stderr) == (0, True), shown.stderr
    answer = json.loads(run("diff", *pair, "--json", env=env, prefix=prefix).stdout)
    assert answer["opens"] == [{"path": "dir"}]
    assert (place.target / "dir").stat().st_mode & 0o777 == 0
    assert run("sync", *pair, env=env, prefix=prefix).returncode == 0
    assert read_tree(place.source) == read_tree(place.target)
    assert json.loads(run("diff", *pair, "--json", env=env, prefix=prefix).stdout)["opens"] == []
