"""One suite for every watcher: what changes is covered, within the bound that the watcher states."""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import logging
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from syncd.model.change import Hints
from syncd.system.mounts import mount_of
from tests.machine import eventually
from tests.watching import EVENTS, Ear, below, covers, kernel_for, make, scans, watched_below

# The package watchdog says so when it meets a new directory twice; pytest would end its thread for that.
pytestmark = pytest.mark.filterwarnings("ignore:Callback with id:RuntimeWarning")

WATCHERS = ["pyinotify", "watchdog", "watchdog-poll", "poll"]
if importlib.util.find_spec("syncd._native"):
    WATCHERS += ["inotify", "inotify, scanning", "poll, native"]


def only(*names: str) -> pytest.MarkDecorator:
    """For a test that asks for more than every watcher promises; each says in its docstring what it does not."""
    return pytest.mark.parametrize("name", [name for name in WATCHERS if name.partition(", ")[0] in names])


by_events = only(*EVENTS)
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
LONG = b"n" * 255


@pytest.fixture(params=WATCHERS)
def name(request) -> str:
    return request.param


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A small tree: two levels, an ignored directory."""
    source = tmp_path / "source"
    (source / "d" / "e").mkdir(parents=True)
    (source / "ignored" / "deep").mkdir(parents=True)
    for path in ("f", "g", "d/f", "d/e/f", "ignored/f"):
        (source / path).write_bytes(b"before")
    (tmp_path / "outside" / "t" / "sub").mkdir(parents=True)
    (tmp_path / "outside" / "x").write_bytes(b"outside")
    (tmp_path / "outside" / "t" / "sub" / "f").write_bytes(b"outside")
    return source


@pytest.fixture
def ear(name, source, monkeypatch) -> Iterator[Ear]:
    kernel = kernel_for(name)
    ear = Ear(make(name, os.fsencode(source), kernel, monkeypatch), kernel, source, scans=scans(name))
    ear.cover()
    yield ear
    ear.watcher.close()


# --- one change, and the paths that are to be covered ---------------------------------------------


def append(path: Path) -> object:
    file = path.open("ab", buffering=0)
    file.write(b"more")
    return file  # stays open


def o_tmpfile(path: Path) -> None:
    fd = os.open(path.parent, os.O_TMPFILE | os.O_WRONLY)
    os.write(fd, b"content")
    os.link(f"/proc/self/fd/{fd}", path, src_dir_fd=fd, follow_symlinks=True)
    os.close(fd)


def exchange(one: Path, other: Path) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.renameat2(-100, os.fsencode(one), -100, os.fsencode(other), 2) == 0, os.strerror(ctypes.get_errno())


def write_in_made(path: Path) -> None:
    path.parent.mkdir(parents=True)
    path.write_bytes(b"new")


def raw(path: Path, name: bytes) -> Path:
    return path / os.fsdecode(name)


def replace(path: Path) -> None:
    """As many editors save."""
    (path.parent / "tmp~new").write_bytes(b"after")
    os.rename(path.parent / "tmp~new", path)


class Change(NamedTuple):
    does: Callable[[Path, Path], object]  # source, outside
    paths: tuple[bytes, ...]


CHANGES = {
    "write": Change(lambda s, _: (s / "new").write_bytes(b"1"), (b"new",)),
    "write deep": Change(lambda s, _: (s / "d/e/new").write_bytes(b"1"), (b"d/e/new",)),
    "overwrite": Change(lambda s, _: (s / "d/f").write_bytes(b"after!"), (b"d/f",)),
    "same size": Change(lambda s, _: (s / "d/f").write_bytes(b"berofe"), (b"d/f",)),
    "append, held open": Change(lambda s, _: append(s / "d/f"), (b"d/f",)),
    "truncate": Change(lambda s, _: os.truncate(s / "d/f", 1), (b"d/f",)),
    "chmod": Change(lambda s, _: (s / "d/f").chmod(0o600), (b"d/f",)),
    "chmod of a directory": Change(lambda s, _: (s / "d").chmod(0o700), (b"d",)),
    "touch": Change(lambda s, _: os.utime(s / "d/f", ns=(1, 1)), (b"d/f",)),
    "unlink": Change(lambda s, _: (s / "d/f").unlink(), (b"d/f",)),
    "rename in": Change(lambda s, o: (o / "x").rename(s / "d/x"), (b"d/x",)),
    "rename out": Change(lambda s, o: (s / "d/f").rename(o / "f"), (b"d/f",)),
    "rename within": Change(lambda s, _: (s / "d/f").rename(s / "d/e/h"), (b"d/f", b"d/e/h")),
    "rename over": Change(lambda s, _: (s / "f").rename(s / "d/f"), (b"f", b"d/f")),
    "save by rename": Change(lambda s, _: replace(s / "d/f"), (b"d/f",)),
    "mkdir": Change(lambda s, _: (s / "d/new").mkdir(), (b"d/new",)),
    "rmdir": Change(lambda s, _: shutil.rmtree(s / "d"), (b"d", b"d/f", b"d/e", b"d/e/f")),
    "made and written": Change(lambda s, _: write_in_made(s / "a/b/c/f"), (b"a", b"a/b", b"a/b/c", b"a/b/c/f")),
    "tree moved in": Change(lambda s, o: (o / "t").rename(s / "t"), (b"t", b"t/sub", b"t/sub/f")),
    "tree moved out": Change(lambda s, o: (s / "d").rename(o / "d"), (b"d", b"d/f", b"d/e", b"d/e/f")),
    "tree renamed": Change(lambda s, _: (s / "d").rename(s / "h"), (b"d", b"d/e/f", b"h", b"h/f", b"h/e", b"h/e/f")),
    "out of the ignored": Change(lambda s, _: (s / "ignored").rename(s / "h"), (b"h", b"h/f", b"h/deep")),
    "into the ignored": Change(lambda s, _: (s / "d").rename(s / "ignored/d"), (b"d", b"d/f", b"d/e/f")),
    "symlink": Change(lambda s, _: (s / "l").symlink_to("nowhere"), (b"l",)),
    "symlink to a directory": Change(lambda s, o: (s / "l").symlink_to(o), (b"l",)),
    "hard link": Change(lambda s, _: os.link(s / "f", s / "d/l"), (b"d/l",)),
    "O_TMPFILE": Change(lambda s, _: o_tmpfile(s / "d/t"), (b"d/t",)),
    "exchange": Change(lambda s, _: exchange(s / "f", s / "d/f"), (b"f", b"d/f")),
    "exchange of kinds": Change(lambda s, _: exchange(s / "f", s / "d"), (b"f", b"d", b"d/e/f", b"f/e/f")),
    "no UTF-8": Change(lambda s, _: raw(s, b"\xff\xfe").write_bytes(b""), (b"\xff\xfe",)),
    "newline": Change(lambda s, _: raw(s / "d", b"a\nb").write_bytes(b""), (b"d/a\nb",)),
    "long name": Change(lambda s, _: raw(s, LONG).write_bytes(b""), (LONG,)),
    "odd directories": Change(
        lambda s, _: write_in_made(raw(s, b"\xff/\n/" + LONG)), (b"\xff", b"\xff/\n", b"\xff/\n/" + LONG)
    ),
    "fifo": Change(lambda s, _: os.mkfifo(s / "d/p"), (b"d/p",)),
    "kind changed": Change(lambda s, _: (shutil.rmtree(s / "d"), (s / "d").write_bytes(b"")), (b"d", b"d/f", b"d/e/f")),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_covered(ear, source, tmp_path, change):
    does, paths = CHANGES[change]
    kept = does(source, tmp_path / "outside")
    hints = ear.expect(*paths)
    assert hints.ready.isdisjoint(hints.waiting)
    assert hints.deep <= hints.ready | hints.waiting
    assert hints.removed <= hints.ready | hints.waiting
    if hasattr(kept, "close"):
        kept.close()


@pytest.mark.parametrize("change", CHANGES)
def test_a_drain_holds_all_that_was_before_it(ear, source, tmp_path, change):
    does, paths = CHANGES[change]
    kept = does(source, tmp_path / "outside")
    hints = ear.watcher.drain()
    assert [path for path in paths if not covers(hints, path)] == []
    if hasattr(kept, "close"):
        kept.close()


# --- two changes ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "then", "path"),
    [
        ("tree renamed", lambda s: (s / "h/e/new").write_bytes(b""), b"h/e/new"),
        ("tree renamed", lambda s: write_in_made(s / "d/e/new"), b"d/e/new"),
        ("tree moved in", lambda s: (s / "t/sub/new").write_bytes(b""), b"t/sub/new"),
        ("tree moved out", lambda s: write_in_made(s / "d/e/new"), b"d/e/new"),
        ("out of the ignored", lambda s: (s / "h/deep/new").write_bytes(b""), b"h/deep/new"),
        ("exchange of kinds", lambda s: (s / "f/e/new").write_bytes(b""), b"f/e/new"),
        ("made and written", lambda s: (s / "a/b/new").write_bytes(b""), b"a/b/new"),
        ("odd directories", lambda s: raw(s, b"\xff/\n/new").write_bytes(b""), b"\xff/\n/new"),
        ("rmdir", lambda s: write_in_made(s / "d/e/new"), b"d/e/new"),
        ("kind changed", lambda s: ((s / "d").unlink(), write_in_made(s / "d/e/new")), b"d/e/new"),
    ],
)
@pytest.mark.parametrize("pause", [True, False], ids=["told between", "at once"])
def test_what_appeared_is_watched(ear, source, tmp_path, first, then, path, pause):
    CHANGES[first].does(source, tmp_path / "outside")
    if pause:
        ear.expect(*CHANGES[first].paths)
        ear.settle()
        ear.forget()
    then(source)
    ear.expect(path)


def test_directories_exchanged_are_both_watched(ear, source):
    (source / "h/i").mkdir(parents=True)
    ear.expect(b"h", b"h/i")
    ear.forget()
    exchange(source / "d", source / "h")
    ear.expect(b"d", b"d/i", b"h", b"h/f", b"h/e/f")
    ear.settle()
    ear.forget()
    (source / "h/e/new").write_bytes(b"")
    (source / "d/i/new").write_bytes(b"")
    ear.expect(b"h/e/new", b"d/i/new")


def test_two_hundred_trees_made_and_written_at_once(ear, source):
    for number in range(200):
        write_in_made(source / f"t{number}/a/b/f")
    paths = [b"t%d%s" % (number, rest) for number in range(200) for rest in (b"", b"/a", b"/a/b", b"/a/b/f")]
    ear.expect(*paths)
    ear.settle()
    ear.forget()
    for number in range(0, 200, 20):
        (source / f"t{number}/a/b/g").write_bytes(b"")
    ear.expect(*(b"t%d/a/b/g" % number for number in range(0, 200, 20)))


def test_a_tree_made_while_it_is_read(ear, source):
    """The race that watching first and listing then wins."""

    def work() -> None:
        for number in range(150):
            write_in_made(source / f"t{number}/a/b/f")
            (source / f"t{number}").rename(source / f"u{number}")
            (source / f"u{number}/a/g").write_bytes(b"")

    thread = threading.Thread(target=work)
    thread.start()
    ear.until(lambda _: not thread.is_alive())
    ear.expect(*(b"u%d%s" % (number, rest) for number in range(150) for rest in (b"", b"/a/b", b"/a/b/f", b"/a/g")))
    ear.settle()
    ear.forget()
    for number in range(0, 150, 15):
        (source / f"u{number}/a/b/new").write_bytes(b"")
    ear.expect(*(b"u%d/a/b/new" % number for number in range(0, 150, 15)))


@only(*EVENTS, "poll")
def test_deeper_than_a_path_can_be_long(ear, source):
    name = b"p" * 250
    top = os.open(source, os.O_RDONLY)
    for _ in range(20):
        os.mkdir(name, dir_fd=top)
        below = os.open(name, os.O_RDONLY, dir_fd=top)
        os.close(top)
        top = below
    path = b"/".join([name] * 20)
    ear.expect(path)
    ear.settle()
    ear.forget()
    os.close(os.open(b"leaf", os.O_WRONLY | os.O_CREAT, dir_fd=top))
    os.close(top)
    ear.expect(path + b"/leaf")
    subprocess.run(["rm", "-rf", source], check=True)  # shutil cannot


# --- what is said, and how -------------------------------------------------------------------------


@by_events
def test_the_last_word_on_a_path_decides(ear, source):
    (source / "new").write_bytes(b"")
    assert b"new" in ear.watcher.drain().ready
    (source / "new").write_bytes(b"1")
    (source / "new").chmod(0o600)
    assert b"new" in ear.watcher.drain().waiting
    (source / "new").unlink()
    (source / "new").write_bytes(b"2")
    hints = ear.watcher.drain()
    assert b"new" in hints.ready & hints.removed
    (source / "new").rename(source / "newer")
    hints = ear.watcher.drain()
    assert hints == Hints(
        ready=frozenset({b"newer"}),
        waiting=frozenset({b"new"}),
        removed=frozenset({b"new"}),
        moves=((b"new", b"newer"),),
        gone=frozenset({b"new"}),
    )
    (source / "new").write_bytes(b"3")
    (source / "newer").unlink()
    (source / "newer").symlink_to("d")
    hints = ear.watcher.drain()
    assert not hints.gone, "it is there again, and nothing more will be said of it"
    assert b"newer" in hints.waiting & hints.removed
    assert not ear.watcher.drain()


@by_events
def test_a_directory_made_anew_is_not_gone_when_the_old_one_is_let_go(ear, source):
    (source / "made").mkdir()
    ear.take(ear.watcher.drain())
    held = os.open(source / "made", os.O_RDONLY)
    (source / "made").rmdir()
    (source / "made").mkdir()
    hints = ear.watcher.drain()
    assert b"made" in hints.waiting & hints.deep & hints.removed
    assert not hints.gone
    os.close(held)  # only now the system tells of the old one itself
    assert not ear.watcher.drain().gone


@by_events
def test_a_moved_directory_is_one_move(ear, source):
    (source / "d").rename(source / "h")
    hints = ear.watcher.drain()
    assert hints.moves == ((b"d", b"h"),)
    assert b"h" in hints.deep
    assert b"d" in hints.waiting & hints.removed


@by_events
def test_half_a_move_is_no_move(ear, source, tmp_path):
    (source / "f").rename(source / "ignored" / "f")
    (source / "ignored" / "f").rename(source / "h")
    (source / "g").rename(tmp_path / "g")
    hints = ear.watcher.drain()
    assert hints.moves == ()
    assert hints.waiting == hints.removed == {b"f", b"g"}
    assert hints.ready == {b"h"}


@only("poll")
def test_a_sweep_sees_no_removal(ear, source):
    (source / "f").unlink()
    hints = ear.expect(b"f")
    assert hints.removed == frozenset()


def test_excluded_names_are_silent(ear, source):
    (source / "a.log").write_bytes(b"")
    (source / "ignored/new").write_bytes(b"")
    (source / "ignored/made").mkdir()
    (source / "d/ignored").mkdir()
    (source / "d/ignored/new").write_bytes(b"")
    (source / "ignored/f").unlink()
    (source / "a.log").rename(source / "b.log")
    hints = ear.settle()
    assert not hints.rescan
    assert [path for path in hints.ready | hints.waiting if b"ignored" in path or path.endswith(b".log")] == []


@by_events
def test_excluded_directories_are_not_watched(name, source, monkeypatch):
    kernel = kernel_for(name)
    ear = Ear(make(name, os.fsencode(source), kernel, monkeypatch), kernel, source)
    with contextlib.closing(ear.watcher):
        assert ear.cover().watched == 3
        assert watched_below(source) == 3
        write_in_made(source / "d/ignored/x/y/f")
        (source / "d/e").rename(source / "ignored/e")
        ear.watcher.drain()
        assert watched_below(source) == 2
        assert ear.cover(rules=ear.compile(b"d\n")).watched == 4  # the root, ignored with two below
        (source / "d/new").write_bytes(b"")
        hints = ear.watcher.drain()
        assert not hints
        everything = ear.cover(rules=ear.compile(b"")).watched
        assert watched_below(source) == everything


def test_rule_files_of_new_directories_are_learnt(ear, source, tmp_path):
    tree = tmp_path / "outside/t"
    (tree / ".gitignore").write_bytes(b"secret\n/sub/hidden\n")
    tree.rename(source / "t")
    ear.expect(b"t")
    ear.settle()
    ear.forget()
    (source / "t/secret").write_bytes(b"")
    (source / "t/sub/hidden").write_bytes(b"")
    (source / "t/hidden").write_bytes(b"")
    ear.expect(b"t/hidden")
    hints = ear.settle()
    assert hints.rescan or not {b"t/secret", b"t/sub/hidden"} & (hints.ready | hints.waiting)


# --- version control locks -------------------------------------------------------------------------


def test_locks(ear, source):
    (source / "ignored/index.lock").write_bytes(b"")
    ear.cover()
    ear.watch_locks(b"ignored", b"index.lock")
    ear.watch_locks(b"absent", b"index.lock")
    ear.settle()
    ear.forget()
    (source / "ignored/index.lock").unlink()
    hints = ear.until(lambda hints: hints.locks)  # with it may come a second word on the marker of `settle`
    assert not {path for path in hints.ready | hints.waiting if path.startswith(b"ignored")}
    ear.settle()
    ear.forget()
    (source / "ignored/other.lock").write_bytes(b"")
    (source / "ignored/deep/index.lock").write_bytes(b"")
    assert not ear.settle().locks
    (source / "ignored/index.lock").write_bytes(b"")
    hints = ear.until(lambda hints: hints.locks)
    assert not {path for path in hints.ready | hints.waiting if path.startswith(b"ignored")}


def test_locks_in_a_directory_that_is_watched_too(ear, source):
    ear.watch_locks(b"d", b"index.lock")
    ear.cover()
    (source / "d/index.lock").write_bytes(b"")
    (source / "d/e/new").write_bytes(b"")
    (source / "d/new").write_bytes(b"")
    ear.until(lambda hints: hints.locks)
    ear.expect(b"d/e/new", b"d/new")


# --- losses ------------------------------------------------------------------------------------------


@pytest.fixture
def short_queue():
    """A queue takes the limit that holds when it is made."""
    path = Path("/proc/sys/fs/inotify/max_queued_events")
    before = path.read_text()
    try:
        path.write_text("16")
    except OSError as error:
        pytest.skip(f"the limit of the queue cannot be lowered: {error.strerror}")
    yield lambda: path.write_text(before)
    path.write_text(before)


@by_events
def test_an_overflow_is_a_rescan(name, source, monkeypatch, short_queue):
    kernel = kernel_for(name)
    ear = Ear(make(name, os.fsencode(source), kernel, monkeypatch), kernel, source)
    short_queue()
    with contextlib.closing(ear.watcher):
        ear.cover()
        for number in range(3000):
            (source / f"n{number}").write_bytes(b"")
        write_in_made(source / "d/x/y/z")
        ear.expect(*(b"n%d" % number for number in range(3000)), b"d/x/y/z")
        if name == "pyinotify":
            assert ear.hints.rescan
        ear.cover()
        ear.settle()
        ear.forget()
        (source / "d/x/y/new").write_bytes(b"")
        ear.expect(b"d/x/y/new")


@only("watchdog")
def test_an_overflow_that_is_only_logged(ear):
    logging.getLogger("watchdog.observers.inotify_c").warning("Inotify queue overflowed; filesystem events were lost")
    assert ear.until(bool).rescan


def test_a_removed_root_is_a_rescan(ear, source):
    shutil.rmtree(source)
    ear.until(lambda hints: hints.rescan)
    (source / "d").mkdir(parents=True)
    ear.cover()
    ear.forget()
    (source / "d/new").write_bytes(b"")
    ear.expect(b"d/new")


@only(*EVENTS, "poll")
def test_a_renamed_root_is_a_rescan(ear, source, tmp_path):
    source.rename(tmp_path / "elsewhere")
    ear.until(lambda hints: hints.rescan)


@by_events
def test_a_replaced_root_is_noticed(ear, source, tmp_path):
    """What appears in the old directory is not taken for the new one's."""
    source.rename(tmp_path / "elsewhere")
    shutil.copytree(tmp_path / "elsewhere", source)
    (tmp_path / "elsewhere/new").mkdir()
    assert ear.watcher.drain().rescan


@as_root
@only(*EVENTS, "watchdog-poll", "poll")
def test_an_unmounted_root(name, tmp_path, monkeypatch):
    """No descriptor blocks the umount, and it is told."""
    source, kernel = tmp_path / "mount", kernel_for(name)
    source.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", source], check=True)
    try:
        write_in_made(source / "d/e/f")
        ear = Ear(make(name, os.fsencode(source), kernel, monkeypatch), kernel, source)
        with contextlib.closing(ear.watcher):
            ear.cover()
            write_in_made(source / "d/x/y")
            ear.expect(b"d/x/y")
            ear.watcher.drain()
            _umount(source)
            ear.forget()
            ear.expect(b"d/e/f")
    finally:
        if mount_of(os.fsencode(source)).point == os.fsencode(source):
            subprocess.run(["umount", "-l", source], check=True)


def _umount(path: Path) -> None:
    """A sweep may hold the root for a moment; a descriptor that is kept would block for good."""
    for _ in range(200):
        if subprocess.run(["umount", path], check=False, stderr=subprocess.DEVNULL).returncode == 0:
            return
    pytest.fail(f"busy: {below(os.fsencode(path))}")


@as_root
@only(*EVENTS, "poll")
def test_a_mount_below_that_goes(ear, source):
    subprocess.run(["mount", "-t", "tmpfs", "none", source / "d/e"], check=True)
    try:
        ear.cover()
        write_in_made(source / "d/e/x/f")
        ear.expect(b"d/e/x/f")
        ear.watcher.drain()
        ear.forget()
    finally:
        _umount(source / "d/e")
    ear.expect(b"d/e/x/f")


@as_root
@by_events
def test_a_directory_with_two_names(name, source, monkeypatch):
    """The second name gets no watch of its own, and that is said."""
    kernel = kernel_for(name)
    (source / "alias").mkdir()
    subprocess.run(["mount", "--bind", source / "d", source / "alias"], check=True)
    ear = Ear(make(name, os.fsencode(source), kernel, monkeypatch), kernel, source)
    try:
        with contextlib.closing(ear.watcher):
            refused = ear.cover().refused
            (source / "d/e/new").write_bytes(b"")
            ear.until(lambda hints: any(covers(hints, path) for path in (b"d/e/new", b"alias/e/new")))
            for path in (b"d/e", b"alias/e"):
                assert covers(ear.hints, path + b"/new") or path in refused
    finally:
        subprocess.run(["umount", source / "alias"], check=True)


@only("watchdog")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_of_the_package_that_fails(ear, source, monkeypatch):
    """Nothing more would come from it: its polling takes over."""
    thread = type("Emitter", (threading.Thread,), {"__module__": "watchdog.observers"})(target=lambda: 1 / 0)
    thread.start()
    assert ear.until(bool).rescan
    ear.forget()
    assert ear.watcher.name == "watchdog-poll"
    (source / "d/new").write_bytes(b"")
    ear.expect(b"d/new")


@only(*EVENTS, "watchdog")
def test_the_limit_of_watches(name, tmp_path):
    """In a user namespace of its own, so that nobody else is short of watches."""
    if subprocess.run(["unshare", "-U", "-r", "true"], check=False, stderr=subprocess.DEVNULL).returncode != 0:
        pytest.skip("no user namespaces")
    done = subprocess.run(
        ["unshare", "-U", "-r", sys.executable, "-m", "tests.conformance.few_watches", name, tmp_path],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr


# --- descriptors ---------------------------------------------------------------------------------------


def test_no_descriptor_is_left_below_the_source(name, source, monkeypatch):
    path, kernel = os.fsencode(source), kernel_for(name)
    before = os.listdir("/proc/self/fd")
    monkeypatch.setattr("tests.watching.SWEEP", 60.0)  # none begins while this looks
    watcher = make(name, path, kernel, monkeypatch)
    ear = Ear(watcher, kernel, source)
    ear.cover()
    assert below(path) == []
    write_in_made(source / "a/b/f")
    (source / "d").rename(source / "h")
    ear.take(ear.watcher.drain())
    ear.watch_locks(b"ignored", b"index.lock")
    if name == "watchdog":  # a thread of the package walks what is new, and has it open for as long
        eventually(lambda: below(path) == [], "the package holds a descriptor")
    assert below(path) == []
    ear.watcher.close()
    ear.watcher.close()
    assert below(path) == []
    if name != "watchdog":  # the package keeps one queue for the process
        assert os.listdir("/proc/self/fd") == before


def test_no_thread_is_left(name, source, monkeypatch):
    kernel = kernel_for(name)
    before = set(threading.enumerate())
    ear = Ear(make(name, os.fsencode(source), kernel, monkeypatch), kernel, source, scans=scans(name))
    ear.cover()
    ear.watcher.close()
    left = set(threading.enumerate()) - before
    assert [thread for thread in left if "InotifyFD" not in repr(thread)] == []  # one for the process, by watchdog


def test_nothing_is_said_when_nothing_changed(ear):
    hints = ear.watcher.drain()
    assert not hints.ready | hints.waiting
    assert not hints.locks
    assert hints.rescan == (ear.watcher.name in ("watchdog", "watchdog-poll"))


def test_a_closed_watcher_says_nothing(ear, source):
    ear.watcher.close()
    (source / "new").write_bytes(b"")
    assert not ear.watcher.read()
