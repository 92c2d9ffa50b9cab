"""A real watch from its first copy to its end."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.compare import assert_equal
from tests.integration.conftest import Place
from tests.integration.watching import SYNCD, Watching, environment, run, watching
from tests.machine import eventually

pytestmark = [pytest.mark.kernel, pytest.mark.loop]


def test_first_copy_then_every_kind_of_change(place: Place) -> None:
    source, target, home = place
    with watching(source, target, home) as watch:
        assert_equal(source, target)
        (source / "a.txt").write_text("changed")
        (source / "new").mkdir()
        (source / "new" / "deep").mkdir()
        (source / "new" / "deep" / "c").write_bytes(b"c" * 300_000)
        os.symlink("../a.txt", source / "new" / "link")
        (source / "dir" / "b.txt").unlink()
        os.chmod(source / "a.txt", 0o755)
        assert watch.flush() == 0
        assert_equal(source, target)
        shutil.rmtree(source / "new")
        os.rename(source / "dir", source / "renamed")
        assert watch.flush() == 0
        assert_equal(source, target)
        assert watch.stop() == 0
    assert_equal(source, target)


def test_a_save_arrives_by_itself(place: Place) -> None:
    with watching(*place) as watch:
        (place.source / "a.txt").write_text("saved")
        assert watch.until("put")["put"] == 1
        assert (place.target / "a.txt").read_text() == "saved"


def test_every_save_of_a_row_of_saves_is_told(place: Place) -> None:
    """However fast they come: each is a cycle of its own in the records, in status and in the baseline on disk."""
    with watching(*place) as watch:
        first = watch.status()["cycles"]
        saves = 40
        for number in range(saves):
            (place.source / "dir" / "b.txt").write_text(f"number {number}")
            mirrored = place.target / "dir" / "b.txt"
            eventually(lambda: mirrored.read_text() == f"number {number}", "it is not mirrored")  # noqa: B023
        assert watch.flush() == 0
        status = watch.status()
        told = [record for record in watch.passed() if record["put"]][-saves:]
        assert [record["cycle"] for record in told] == list(range(first + 1, first + saves + 1))
        assert all(record["lag"] > 0 and record["put"] == 1 and record["in_sync"] for record in told)
        assert status["cycles"] >= first + saves
        assert status["lag_p50"] is not None
        assert status["state"] == "in sync"
        explained = json.loads(watch.run("explain", "dir/b.txt", "--json").stdout)
        assert explained["watch"]["last_hint"]
        assert explained["watch"]["last_write"]
        watch.process.kill()  # nothing is written down at the end
        watch.process.wait()
    with watching(*place) as watch:
        assert watch.reports[0]["put"] == 0


def test_restart_carries_over_what_changed_meanwhile(place: Place) -> None:
    source, target, home = place
    with watching(source, target, home) as watch:
        assert watch.stop() == 0
    (source / "a.txt").write_text("while away")
    (source / "dir" / "b.txt").unlink()
    (target / "made by the container").write_text("mine")
    with watching(source, target, home) as watch:
        first = watch.reports[0]
        assert (first["put"], first["removed"], first["drift"]) == (1, 1, {"made": 1})
    assert (target / "made by the container").read_text() == "mine"
    assert (target / "a.txt").read_text() == "while away"
    assert not (target / "dir" / "b.txt").exists()


def test_status_answers_and_names_the_state(place: Place) -> None:
    with watching(*place) as watch:
        answer = json.loads(watch.run("status", "--json").stdout)
        assert answer["state"] == "in sync"
        assert answer["entries"] == 3
        assert answer["pid"] == watch.process.pid
        by_target = run("status", str(place.target), env=watch.env)
        assert by_target.returncode == 0
        assert "in sync" in by_target.stdout


def test_a_second_watch_is_refused_and_named(place: Place) -> None:
    with watching(*place) as watch:
        second = run("watch", str(place.source), str(place.target), env=watch.env)
        assert second.returncode == 5
        assert str(watch.process.pid) in second.stderr
        assert "Traceback" not in second.stderr


def test_sync_asks_the_watch_that_holds_the_pair(place: Place) -> None:
    with watching(*place) as watch:
        (place.source / "x").write_text("x")
        assert watch.run("sync").returncode == 0
        assert (place.target / "x").read_text() == "x"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signals_end_cleanly_and_leave_nothing_behind(place: Place, number: int) -> None:
    before = signal.signal(number, signal.default_int_handler)  # a suite under nohup ignores one of them
    try:
        watch = Watching(*place)
    finally:
        signal.signal(number, before)
    try:
        watch.report()
        assert watch.stop(number) == 0
    finally:
        watch.close()
    assert not [path for path in (place.home / "run").rglob("*") if path.is_socket()]
    assert os.listdir(place.home.joinpath("run")) in ([], ["syncd"])
    assert sorted(path.name for path in place.target.iterdir()) == ["a.txt", "dir"]


def test_flush_without_a_watch_says_so(place: Place) -> None:
    answer = run("flush", str(place.source), str(place.target), env=environment(place.home))
    assert answer.returncode == 4
    assert "syncd watch" in answer.stderr


def test_overlay_and_ignored_paths_are_left_alone(place: Place) -> None:
    source, target, home = place
    (source / "node_modules").mkdir()
    (source / "node_modules" / "host.js").write_text("host")
    (source / "x.log").write_text("log")
    (target / "node_modules").mkdir(parents=True)
    (target / "node_modules" / "image.js").write_text("image")
    with watching(source, target, home, "--overlay", "node_modules", "--ignore", "*.log") as watch:
        (source / "node_modules" / "more.js").write_text("more")
        (source / "y.log").write_text("log")
        shutil.rmtree(source / "node_modules")
        assert watch.flush() == 0
    assert sorted(os.listdir(target)) == ["a.txt", "dir", "node_modules"]
    assert os.listdir(target / "node_modules") == ["image.js"]


def test_a_rule_file_takes_effect_when_it_is_saved(place: Place) -> None:
    source, target, home = place
    with watching(source, target, home) as watch:
        (source / ".syncdignore").write_text("dir/\n")
        assert watch.flush() == 0
        (source / "dir" / "b.txt").write_text("not mirrored any more")
        assert watch.flush() == 0
        assert (target / "dir" / "b.txt").read_text() == "b"
        (source / ".syncdignore").unlink()
        assert watch.flush() == 0
        assert_equal(source, target)


def test_drift_is_kept_and_a_conflict_set_aside(place: Place) -> None:
    source, target, home = place
    with watching(source, target, home) as watch:
        (target / "a.txt").write_text("the container's")
        (target / "dir" / "b.txt").write_text("kept")
        (source / "a.txt").write_text("the host's")
        assert watch.flush() == 0
        assert (target / "a.txt").read_text() == "the host's"
        assert (target / "dir" / "b.txt").read_text() == "kept"
        listed = json.loads(watch.run("drift", "--json").stdout)
        assert [row["path"] for row in listed["drift"]] == ["dir/b.txt"]
        (aside,) = listed["set_aside"]
        assert aside["path"] == "a.txt"
        kept = Path(aside["below"], "conflicts", aside["batch"], "a.txt")
        assert kept.read_text() == "the container's"


def test_pull_brings_the_containers_edit_back(place: Place) -> None:
    source, target, home = place
    with watching(source, target, home) as watch:
        (target / "a.txt").write_text("the container's")
        (target / "new.txt").write_text("new")
        assert watch.run("pull", "a.txt", "new.txt").returncode == 0
        assert (source / "a.txt").read_text() == "the container's"
        assert (source / "new.txt").read_text() == "new"
        assert watch.flush() == 0
        assert_equal(source, target)


def test_what_the_container_changed_stays_drift_when_the_source_is_written_with_the_same_bytes(place: Place) -> None:
    source, target, home = place
    env = environment(home)
    for name in ("removed", "edited", "news"):
        (source / name).write_text("agreed")
    assert run("sync", str(source), str(target), env=env).returncode == 0
    (target / "removed").unlink()
    (target / "edited").write_text("by the container")
    for name in ("removed", "edited"):
        (source / name).write_text("agreed")
        os.utime(source / name, (1, 1))
    assert run("sync", str(source), str(target), env=env).returncode == 0
    said = run("verify", str(source), str(target), "--json", env=env)
    assert said.returncode == 0, said.stdout
    assert {each["path"] for each in json.loads(said.stdout)["drifted"]} == {"removed", "edited"}
    (source / "removed").write_text("other")
    (source / "edited").write_text("other")
    said = run("verify", str(source), str(target), "--json", env=env)
    assert said.returncode == 3
    assert [[each["path"] for each in json.loads(said.stdout)[group]] for group in ("missing", "different")] == [
        ["removed"],
        ["edited"],
    ]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda there: (there / "a.txt").unlink(), "drift: the container removed it"),
        (lambda there: (there / "a.txt").write_text("mine"), "drift: the container edited it"),
        (lambda there: None, ""),
    ],
)
def test_explain_says_what_the_container_did(place: Place, change: Callable[[Path], object], said: str) -> None:
    source, target, home = place
    env = environment(home)
    assert run("sync", str(source), str(target), env=env).returncode == 0
    change(target)
    (target / "made").write_text("mine")
    text = run("explain", str(source), str(target), "a.txt", env=env).stdout
    assert said in text if said else "drift" not in text
    assert "the container made it" in run("explain", str(source), str(target), "made", env=env).stdout


def test_an_emptied_source_halts_and_approve_lets_it_through(place: Place) -> None:
    source, target, home = place
    with watching(source, target, home) as watch:
        shutil.rmtree(source / "dir")
        (source / "a.txt").unlink()
        record = watch.until("halt")
        assert (target / "a.txt").exists()
        assert watch.flush() == 5
        assert run("approve", "feedfeed", str(target), env=watch.env).returncode == 2
        approved = run("approve", record["halt"]["id"], str(target), env=watch.env)
        assert approved.returncode == 0, approved.stderr
        assert os.listdir(target) == []


def test_a_halt_clears_when_the_source_is_back(place: Place) -> None:
    source, target, home = place
    with watching(source, target, home) as watch:
        os.rename(source, source.with_name("away"))
        watch.until("halt")
        assert (target / "a.txt").exists()
        os.rename(source.with_name("away"), source)
        assert watch.flush() in (0, 5)
        assert watch.run("sync").returncode == 0
        assert_equal(source, target)


def test_no_descriptor_below_the_source_between_cycles(place: Place) -> None:
    with watching(*place) as watch:
        held = []
        for fd in Path(f"/proc/{watch.process.pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # the control socket's own come and go
                held.append(os.readlink(fd))
        assert held
        assert not [path for path in held if path.startswith(str(place.source))]


def test_json_of_the_first_cycle_has_the_stable_keys(place: Place) -> None:
    done = subprocess.run(
        [*SYNCD, "sync", str(place.source), str(place.target), "--json"],
        env=environment(place.home), capture_output=True, text=True, check=True,
    )  # fmt: skip
    record = json.loads(done.stdout)
    assert record["schema"] == 1
    assert {"cycle", "full", "put", "removed", "bytes", "in_sync", "problems", "drift", "halt"} <= record.keys()
    assert record["put"] == 3
