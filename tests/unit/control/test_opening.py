"""`resolve`: every refusal, and that nothing is made then."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from syncd.control.opening import open_pair, resolve
from syncd.engine.cycle import cycle
from syncd.errors import Refused, TargetBusy, UsageError
from syncd.model.change import Batch
from syncd.model.settings import Settings
from syncd.system import flocks
from syncd.system.dirs import pair_dir
from syncd.system.locks import live_targets

OVERLAYS = Settings(b"", b"", overlays=(b"build/out",))
PLAIN = Settings(b"", b"")

# name, what to make below the directory (a trailing / is a directory), SOURCE, TARGET, what is said
REFUSALS = [
    ("SOURCE is missing", ["t/"], "s", "t", "SOURCE .*s does not exist"),
    ("SOURCE is a link to nowhere", ["t/", "s -> gone"], "s", "t", "SOURCE .*s does not exist"),
    ("SOURCE is a file", ["s", "t/"], "s", "t", "SOURCE .*s is not a directory"),
    ("SOURCE is a FIFO", ["s |", "t/"], "s", "t", "SOURCE .*s is not a directory"),
    ("TARGET is a file", ["s/", "t"], "s", "t", "TARGET .*t is not a directory"),
    ("TARGET's parent is missing", ["s/"], "s", "no/t", "no, which would hold TARGET, does not exist"),
    ("TARGET's parent is a file", ["s/", "f"], "s", "f/t", "f, which would hold TARGET, is not a directory"),
    ("both are one path", ["s/"], "s", "s", "same directory"),
    ("both are one path spelt differently", ["s/"], "s", "s/../s/", "same directory"),
    ("TARGET is a link to SOURCE", ["s/", "t -> s"], "s", "t", "same directory"),
    ("SOURCE lies inside TARGET", ["t/s/"], "t/s", "t", "lies inside TARGET"),
    ("SOURCE lies deep inside TARGET", ["t/a/b/s/"], "t/a/b/s", "t", "lies inside TARGET"),
    ("SOURCE lies inside TARGET behind a link", ["t/s/", "l -> t"], "t/s", "l", "lies inside TARGET"),
    ("TARGET lies inside SOURCE", ["s/t/"], "s", "s/t", "lies inside SOURCE .*--overlay t"),
    ("a missing TARGET lies inside SOURCE", ["s/"], "s", "s/t", "lies inside SOURCE"),
    ("TARGET lies inside SOURCE behind a link", ["s/a/t/", "l -> s/a"], "s", "l/t", "lies inside SOURCE .*--overlay a/t"),
    ("TARGET lies in SOURCE above an overlay", ["s/build/"], "s", "s/build", "lies inside SOURCE"),
    ("TARGET lies in SOURCE beside an overlay", ["s/build/outer/"], "s", "s/build/outer", "lies inside SOURCE"),
]  # fmt: skip


def build(top, names):
    for name in names:
        path, arrow, link = name.partition(" -> ")
        where = top / path.removesuffix(" |").rstrip("/")
        where.parent.mkdir(parents=True, exist_ok=True)
        if arrow:
            where.symlink_to(link)
        elif name.endswith("/"):
            where.mkdir(parents=True, exist_ok=True)
        elif name.endswith(" |"):
            os.mkfifo(where)
        else:
            where.touch()


def everything(top):
    return sorted(str(path) for path in top.rglob("*"))


def at(top, name):
    return os.fsencode(f"{top}/{name}")


@pytest.mark.parametrize("create", [True, False])
@pytest.mark.parametrize(("made", "source", "target", "said"), [row[1:] for row in REFUSALS], ids=[r[0] for r in REFUSALS])  # fmt: skip
def test_refused_and_nothing_is_made(tmp_path, made, source, target, said, create):
    build(tmp_path, made)
    before = everything(tmp_path)
    with pytest.raises(UsageError, match=said):
        resolve(at(tmp_path, source), at(tmp_path, target), OVERLAYS, create=create)
    assert everything(tmp_path) == before


@pytest.mark.parametrize(("made", "target"), [(["s/build/out/"], "s/build/out"), (["s/build/out/x/"], "s/build/out/x")])
def test_a_target_in_an_overlay_of_the_source_is_fine(tmp_path, made, target):
    build(tmp_path, made)
    assert resolve(at(tmp_path, "s"), at(tmp_path, target), OVERLAYS).target == at(tmp_path, target)


def test_names_that_only_begin_alike_are_fine(tmp_path):
    build(tmp_path, ["s/", "s-mirror/", "s-mirror/s/"])
    assert resolve(at(tmp_path, "s"), at(tmp_path, "s-mirror"), PLAIN).source == at(tmp_path, "s")


def test_real_paths_come_back_and_a_missing_target_is_made(tmp_path):
    build(tmp_path, ["real\udcff/", "link -> real\udcff", "mirrors/"])
    done = resolve(at(tmp_path, "link/"), at(tmp_path, "mirrors/./t"), OVERLAYS)
    assert (done.source, done.target) == (at(tmp_path, "real\udcff"), at(tmp_path, "mirrors/t"))
    assert done.overlays == OVERLAYS.overlays
    assert (tmp_path / "mirrors" / "t").is_dir()


def test_reading_makes_no_target(tmp_path):
    build(tmp_path, ["s/"])
    assert resolve(at(tmp_path, "s"), at(tmp_path, "t"), PLAIN, create=False).target == at(tmp_path, "t")
    assert not (tmp_path / "t").exists()


AS_NOBODY = """
import os, sys
from syncd.control.opening import resolve
from syncd.errors import UsageError
from syncd.model.settings import Settings
if os.geteuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
try:
    resolve(os.fsencode(sys.argv[1]), os.fsencode(sys.argv[2]), Settings(b"", b""))
except UsageError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("closed", "mode", "said"),
    [("s", 0o000, "cannot be read"), ("s", 0o644, "cannot be read"), ("s", 0o311, "cannot be read"),
     ("m", 0o555, "cannot be made: Permission denied")],
)  # fmt: skip
def test_without_the_right_to(tmp_path_factory, closed, mode, said):
    """As another user than root, who may do everything."""
    top = tmp_path_factory.mktemp("open")
    for path in (top, *top.parents[:4]):
        if path.owner() == "root" and path != Path("/tmp"):
            path.chmod(path.stat().st_mode | 0o111)
    build(top, ["s/", "m/"])
    (top / closed).chmod(mode)
    try:
        done = subprocess.run(
            [sys.executable, "-c", AS_NOBODY, str(top / "s"), str(top / "m" / "t")], capture_output=True, text=True
        )
        assert said in done.stdout, done.stderr
        assert not (top / "m" / "t").exists()
    finally:
        (top / closed).chmod(0o755)


BY_MOUNT = """
import os, subprocess, sys
from syncd.control.opening import resolve
from syncd.errors import UsageError
from syncd.model.settings import Settings
subprocess.run(["mount", "--bind", sys.argv[1], sys.argv[2]], check=True)
try:
    resolve(os.fsencode(sys.argv[3]), os.fsencode(sys.argv[4]), Settings(b"", b""))
except UsageError as error:
    print(error)
"""


def can_mount() -> bool:
    command = ["unshare", "--user", "--map-root-user", "--mount", "true"]
    try:
        return subprocess.run(command, capture_output=True).returncode == 0
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not can_mount(), reason="needs user and mount namespaces")
@pytest.mark.parametrize(
    ("bound", "at_", "source", "target", "said"),
    [
        ("s", "other", "s", "other", "same directory"),
        ("s", "other", "s", "other/a", "lies inside SOURCE .*: put it elsewhere, or .*--overlay a$"),
        ("s", "other", "s", "other/new", "lies inside SOURCE .*--overlay new$"),
        ("s", "other", "other/a", "s", "lies inside TARGET"),
        ("s", "other", "s/a", "other", "lies inside TARGET"),
    ],
)
def test_bind_mounts_do_not_hide_what_is_one_directory(tmp_path, bound, at_, source, target, said):
    build(tmp_path, ["s/a/", "other/"])
    names = [str(tmp_path / name) for name in (bound, at_, source, target)]
    command = ["unshare", "--user", "--map-root-user", "--mount", sys.executable, "-c", BY_MOUNT, *names]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    import re

    assert re.search(said, done.stdout.strip()), done.stdout
    assert everything(tmp_path) == sorted(str(tmp_path / name) for name in ("s", "s/a", "other"))


# open_pair --------------------------------------------------------------------------------------------


@pytest.fixture
def pair(tmp_path, xdg):
    build(tmp_path, ["s/a", "t/"])
    return resolve(at(tmp_path, "s"), at(tmp_path, "t"), PLAIN)


def quiet(_text):
    pass


def test_a_target_has_one_writer(pair, kernel):
    before = os.listdir("/proc/self/fd")
    opened = open_pair(pair, kernel, quiet)
    with pytest.raises(TargetBusy):
        open_pair(pair, kernel, quiet)
    opened.close()
    assert os.listdir("/proc/self/fd") == before
    open_pair(pair, kernel, quiet).close()


@pytest.mark.parametrize(("first", "second"), [("t", "t/sub"), ("t/sub", "t")])
def test_targets_do_not_lie_in_one_another(tmp_path, pair, kernel, first, second):
    build(tmp_path, ["t/sub/", "s2/"])
    opened = open_pair(resolve(at(tmp_path, "s"), at(tmp_path, first), PLAIN), kernel, quiet)
    try:
        with pytest.raises(Refused, match=f"process {os.getpid()} already mirrors into"):
            open_pair(resolve(at(tmp_path, "s2"), at(tmp_path, second), PLAIN), kernel, quiet)
    finally:
        opened.close()


def test_a_pair_has_one_writer_also_with_another_runtime_directory(tmp_path, pair, kernel, monkeypatch):
    before = os.listdir("/proc/self/fd")
    opened = open_pair(pair, kernel, quiet)
    (tmp_path / "other").mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "other"))
    with pytest.raises(TargetBusy, match="another XDG_RUNTIME_DIR"):
        open_pair(pair, kernel, quiet)
    opened.close()
    open_pair(pair, kernel, quiet).close()
    assert os.listdir("/proc/self/fd") == before


def test_a_target_has_one_writer_also_when_its_lock_went_away(tmp_path, pair, kernel, monkeypatch):
    build(tmp_path, ["s2/"])
    opened = open_pair(pair, kernel, quiet)
    (tmp_path / "other").mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "other"))
    other = resolve(at(tmp_path, "s2"), pair.target, PLAIN)
    with pytest.raises(TargetBusy, match="already written"):
        open_pair(other, kernel, quiet)
    opened.close()
    open_pair(other, kernel, quiet).close()


def test_who_began_at_the_same_moment_is_seen_by_one_of_both(tmp_path, pair, kernel, monkeypatch):
    """Neither holds anything while the other one looks for the first time."""
    turned = pair._replace(source=pair.target, target=pair.source)
    first = live_targets
    monkeypatch.setattr("syncd.control.opening.live_targets", list)
    with contextlib.ExitStack() as running:

        def then():
            monkeypatch.setattr("syncd.control.opening.live_targets", first)
            return []

        running.callback(open_pair(pair, kernel, quiet).close)
        monkeypatch.setattr("syncd.control.opening.live_targets", then)
        before = os.listdir("/proc/self/fd")
        with pytest.raises(Refused, match="would come back"):
            open_pair(turned, kernel, quiet)
        assert os.listdir("/proc/self/fd") == before


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files of others")
def test_the_state_of_another_user_is_left_alone(pair, kernel):
    open_pair(pair, kernel, quiet).close()
    state = pair_dir(pair.source, pair.target)
    os.chown(state, 65534, 65534)
    before = sorted(path.name for path in state.iterdir())
    with pytest.raises(Refused, match="belongs to user 65534"):
        open_pair(pair, kernel, quiet)
    assert sorted(path.name for path in state.iterdir()) == before


def test_a_known_pair_is_not_turned_round_by_mistake(pair, kernel):
    open_pair(pair, kernel, quiet).close()
    turned = pair._replace(source=pair.target, target=pair.source)
    for _ in range(2):
        with pytest.raises(Refused, match="were they swapped"):
            open_pair(turned, kernel, quiet)
    open_pair(turned._replace(adopt=True), kernel, quiet).close()
    open_pair(turned, kernel, quiet).close()  # known by now
    open_pair(pair, kernel, quiet).close()


RINGS = [
    [("s", "t"), ("t", "s")],
    [("s", "t"), ("t", "u"), ("u", "s")],
    [("t", "u"), ("s", "t"), ("u", "s")],
    [("s", "t"), ("t", "s/sub")],
    [("s", "t"), ("t/sub", "s")],
    [("s", "t"), ("t", "u"), ("u/sub", "s/sub")],
]


@pytest.mark.parametrize("ring", RINGS)
def test_what_is_written_does_not_come_back(tmp_path, kernel, ring):
    build(tmp_path, ["s/sub/", "t/sub/", "u/sub/"])
    *before, last = [resolve(at(tmp_path, source), at(tmp_path, target), PLAIN) for source, target in ring]
    with contextlib.ExitStack() as running:
        for each in before:
            running.callback(open_pair(each, kernel, quiet).close)
        with pytest.raises(Refused, match=f"process {os.getpid()} already mirrors .* would come back into SOURCE"):
            open_pair(last, kernel, quiet)


def test_a_chain_is_no_ring(tmp_path, kernel):
    build(tmp_path, ["s/", "t/", "u/", "v/"])
    with contextlib.ExitStack() as running:
        for source, target in [("t", "u"), ("s", "t"), ("s", "v")]:
            pair = resolve(at(tmp_path, source), at(tmp_path, target), PLAIN)
            running.callback(open_pair(pair, kernel, quiet).close)


def test_two_targets_in_overlays_of_their_source_are_no_ring(tmp_path, kernel):
    build(tmp_path, ["s/one/", "s/two/"])
    both = PLAIN._replace(overlays=(b"one", b"two"))
    first, second = (resolve(at(tmp_path, "s"), at(tmp_path, f"s/{name}"), both) for name in ("one", "two"))
    with contextlib.ExitStack() as running:
        running.callback(open_pair(first, kernel, quiet).close)
        running.callback(open_pair(second, kernel, quiet).close)
    with contextlib.ExitStack() as running:
        running.callback(open_pair(first._replace(overlays=(b"one",)), kernel, quiet).close)
        with pytest.raises(Refused, match="would come back"):  # each sees what is written into the other one
            open_pair(second._replace(overlays=(b"two",)), kernel, quiet)


def test_a_start_that_fails_holds_nothing(pair, kernel, monkeypatch):
    before = os.listdir("/proc/self/fd")
    monkeypatch.setattr("syncd.control.opening._finish_intents", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        open_pair(pair, kernel, quiet)
    monkeypatch.undo()
    assert os.listdir("/proc/self/fd") == before


def test_a_target_made_anew_is_a_first_meeting_and_no_damage(tmp_path, pair, kernel):
    opened = open_pair(pair, kernel, quiet)
    opened.pair.baseline.note(met=True)
    opened.close()
    (tmp_path / "t").rename(tmp_path / "old")
    (tmp_path / "t").mkdir()
    said = []
    opened = open_pair(pair, kernel, said.append)
    opened.close()
    assert said == ["the target is another directory than the one mirrored before: a first meeting"]
    assert "met" not in opened.pair.baseline.notes


def test_a_source_that_holds_the_state_directory_leaves_it_out(tmp_path, xdg, kernel):
    build(tmp_path, ["t/"])
    home = tmp_path / "state"
    opened = open_pair(resolve(os.fsencode(home), at(tmp_path, "t"), PLAIN), kernel, quiet)
    try:
        assert b"syncd" in opened.pair.settings.overlays
        assert opened.pair.rules.excluded(b"syncd/x", False)
    finally:
        opened.close()


@pytest.mark.parametrize(("source", "target", "name"), [(b"", b"t", "SOURCE"), (b"s", b"", "TARGET")])
def test_an_empty_argument_is_not_the_current_directory(source: bytes, target: bytes, name: str) -> None:
    with pytest.raises(UsageError, match=f"{name} is empty"):
        resolve(source, target, PLAIN)


def test_what_a_killed_process_began_to_save_goes(pair, kernel):
    open_pair(pair, kernel, quiet).close()
    state = pair_dir(pair.source, pair.target)
    left, under_way = state / ".save-abc", state / ".save-def"
    left.touch()
    os.utime(left, (1, 1))
    under_way.touch()
    open_pair(pair, kernel, quiet).close()
    assert (left.exists(), under_way.exists()) == (False, True)


@pytest.mark.parametrize("compared", [True, False])
def test_a_boot_is_noted_only_when_everything_was_compared(pair, kernel, monkeypatch, compared):
    """A run that ended before that leaves the next one as much in doubt."""
    first = open_pair(pair, kernel, quiet)
    first.pair.baseline.note(met=True)
    first.close(clean=False)
    monkeypatch.setattr("syncd.control.opening.boot_id", lambda: "another boot")
    second = open_pair(pair, kernel, quiet)
    assert not second.pair.trusted
    if compared:
        assert cycle(second.pair, Batch(everything=True)).in_sync
    second.close(clean=False)
    third = open_pair(pair, kernel, quiet)
    assert third.pair.trusted == compared
    third.close()


def test_a_staging_that_another_run_uses_is_left_to_it(tmp_path, pair, kernel):
    """A pull into a directory that is also a target."""
    opened = open_pair(pair, kernel, quiet)
    where = opened.pair.staging.where
    opened.close()
    where.mkdir(exist_ok=True, mode=0o700)
    fd = os.open(where, os.O_RDONLY)
    try:
        assert flocks.take(fd)
        with pytest.raises(TargetBusy, match="unfinished files"):
            open_pair(pair, kernel, quiet)
        assert where.exists()
    finally:
        os.close(fd)
    open_pair(pair, kernel, quiet).close()
