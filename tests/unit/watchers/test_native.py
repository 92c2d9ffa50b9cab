"""What the native watcher promises beyond the common suite: its thread, races, odd renames."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib.util
import os
import random
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from syncd.kernel.contract import Side, Tree
from syncd.watchers.base import Coverage
from tests.watching import Ear, kernel_for, make, watched_below

if importlib.util.find_spec("syncd._native") is None:
    pytest.skip("the native kernel is not built", allow_module_level=True)

RULES = b"ignored\n/a/b\nb/c/a/\n"
LIBC = ctypes.CDLL(None, use_errno=True)


@pytest.fixture(params=["covering", "scanning"])
def ear(request, tmp_path) -> Iterator[Ear]:
    source = tmp_path / "source"
    source.mkdir()
    kernel = kernel_for("inotify")
    watcher = make("inotify", os.fsencode(source), kernel, None)
    ear = Ear(watcher, kernel, source, scans=request.param == "scanning")
    ear.cover(rules=ear.compile(RULES))
    yield ear
    ear.watcher.close()


@pytest.fixture
def source(tmp_path) -> Path:
    return tmp_path / "source"


def exchange(one: Path, other: Path) -> bool:
    return LIBC.renameat2(-100, os.fsencode(one), -100, os.fsencode(other), 2) == 0


def names_of(ear: Ear, source: Path) -> set[bytes]:
    """Make a new name in every directory that is not excluded."""
    made = set()
    number = time.monotonic_ns()
    for directory, below, _ in os.walk(source):
        path = os.path.relpath(directory, source)
        here = "" if path == "." else path + "/"
        below[:] = [name for name in below if not ear.rules.excluded(os.fsencode(here + name), True)]
        name = f"{here}mark{number}"
        (source / name).write_bytes(b"")
        made.add(os.fsencode(name))
    return made


def assert_all_watched(ear: Ear, source: Path) -> None:
    """Every directory tells, under its present name; and no other one is watched."""
    ear.watcher.drain()
    made = names_of(ear, source)
    assert ear.watcher.drain().ready == made
    assert watched_below(source) == len(made)
    assert ear.cover().watched == len(made)


# --- renames ----------------------------------------------------------------------------------------


def test_a_renamed_tree_keeps_its_watches(ear, source):
    for number in range(50):
        (source / f"t/{number}/x").mkdir(parents=True)
    ear.watcher.drain()
    (source / "t").rename(source / "u")
    (source / "u/7").rename(source / "u/8/seven")
    (source / "u").rename(source / "v")
    hints = ear.watcher.drain()
    assert b"v" in hints.deep
    assert hints.moves[-1] == (b"u", b"v")
    assert_all_watched(ear, source)


@pytest.mark.parametrize("told", [True, False])
def test_other_rules_hold_under_a_new_name(ear, source, told):
    (source / "x/b/c").mkdir(parents=True)
    if told:
        ear.watcher.drain()
    (source / "x").rename(source / "a")
    assert_all_watched(ear, source)
    assert watched_below(source) == 2  # /a/b is ignored
    (source / "a").rename(source / "x")
    assert_all_watched(ear, source)
    assert watched_below(source) == 4


def test_a_tree_that_leaves_is_no_longer_watched(ear, source, tmp_path):
    for number in range(20):
        (source / f"t/{number}").mkdir(parents=True)
    ear.watcher.drain()
    (source / "t").rename(tmp_path / "t")
    (source / "more").mkdir()
    ear.watcher.drain()
    assert watched_below(tmp_path / "t") == 0
    (tmp_path / "t").rename(source / "ignored")
    ear.watcher.drain()
    (source / "ignored").rename(source / "back")
    assert_all_watched(ear, source)


def test_every_name_of_two_exchanged_trees(ear, source):
    for name in "xy":
        (source / name / name).mkdir(parents=True)
    for told in (True, False, True):
        assert exchange(source / "x", source / "y")
        assert exchange(source / "x", source / "y")
        assert exchange(source / "x", source / "y")
        if told:
            assert_all_watched(ear, source)


@pytest.mark.parametrize("seed", [*range(6), *(pytest.param(n, marks=pytest.mark.slow) for n in range(6, 60))])
def test_a_storm_of_renames(ear, source, tmp_path, seed):
    """Whatever happened, in the end every directory is watched under its name."""
    rng = random.Random(seed)
    outside = tmp_path / "outside"
    outside.mkdir()

    def somewhere() -> Path:
        path = source if rng.random() < 0.85 else outside
        for _ in range(rng.randint(1, 4)):
            path /= rng.choice(["a", "b", "c", "ignored"])
        return path

    deeds: list[tuple[int, Callable[[], object]]] = [
        (40, lambda: somewhere().mkdir(parents=True)),
        (35, lambda: somewhere().rename(somewhere())),
        (10, lambda: exchange(somewhere(), somewhere())),
        (7, lambda: shutil.rmtree(somewhere())),
        (8, lambda: somewhere().write_bytes(b"")),
    ]

    def storm() -> None:
        weights = [weight for weight, _ in deeds]
        for _, deed in rng.choices(deeds, weights, k=300 + 200 * (seed % 4)):
            try:
                deed()
            except OSError:
                pass

    thread = threading.Thread(target=storm)
    thread.start()
    if seed % 3 == 0:
        thread.join()
    while thread.is_alive():
        ear.take(ear.watcher.read())
        if seed % 3 == 2:
            ear.cover()
    thread.join()
    ear.take(ear.watcher.drain())
    ear.forget()
    assert_all_watched(ear, source)


# --- watching and scanning in one walk ---------------------------------------------------------------


def scans(ear: Ear, *, cancelled: bool = False) -> tuple[Coverage, Tree, Tree]:
    """The coverage and the tree of one walk, and that of a scan alone."""
    with contextlib.closing(ear.kernel.open_root(ear.source)) as root:
        control = ear.kernel.control()
        control.cancelled = cancelled
        base = ear.kernel.empty_base()
        covered, tree = ear.watcher.scan(root, ear.rules, base, control, False)
        return covered, tree, ear.kernel.scan(root, ear.rules, Side.SOURCE, base, None, ear.kernel.control())


def test_one_walk_sees_what_a_scan_sees(ear, source):
    for number in range(400):  # enough for a second thread
        (source / f"d{number % 40}" / f"e{number}" / "ignored").mkdir(parents=True)
        (source / f"d{number % 40}" / f"f{number}").write_bytes(b"")
    (source / "link").symlink_to("d1")
    os.mkfifo(source / "fifo")
    covered, tree, alone = scans(ear)
    assert covered == (441, (), 0)
    assert list(tree.rows()) == list(alone.rows()) != []
    assert (tree.others, tree.bytes, tree.scope, tree.troubles) == (alone.others, alone.bytes, alone.scope, [])
    assert_all_watched(ear, source)


def test_a_walk_that_was_stopped_drops_no_watch(ear, source):
    (source / "d/e").mkdir(parents=True)
    ear.cover()
    covered, tree, _ = scans(ear, cancelled=True)
    assert covered.watched == 3
    assert tree.troubles
    (source / "d/e/f").write_bytes(b"")
    assert b"d/e/f" in ear.watcher.drain().ready


def test_a_walk_of_a_root_that_is_gone_leaves_the_watcher_hearing(ear, source):
    (source / "d").mkdir()
    ear.cover()
    with contextlib.closing(ear.kernel.open_root(ear.source)) as root:
        source.rename(source.with_name("away"))
        shutil.rmtree(source.with_name("away"))
        with pytest.raises(FileNotFoundError):
            ear.watcher.scan(root, ear.rules, ear.kernel.empty_base(), ear.kernel.control(), False)
    assert ear.watcher.drain().rescan


# --- races -------------------------------------------------------------------------------------------


def chain(source: Path, depth: int, name: bytes, make_directories: bool) -> None:
    """A file in each of so many nested directories, deeper than a path can be long."""
    here = os.open(source, os.O_RDONLY)
    for _ in range(depth):
        if make_directories:
            os.mkdir(b"nest", dir_fd=here)
        below = os.open(b"nest", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
        os.close(os.open(name, os.O_WRONLY | os.O_CREAT, dir_fd=here))
    os.close(here)


@pytest.mark.slow
def test_two_thousand_nested_directories_at_once(ear, source):
    depth = 2000
    thread = threading.Thread(target=chain, args=(source, depth, b"f", True))
    thread.start()
    while thread.is_alive():
        ear.take(ear.watcher.read())
        thread.join(0.002)  # or it would wait for the interpreter at each of its calls
    ear.take(ear.watcher.drain())
    top = min(ear.hints.deep, key=len)
    assert top == b"nest"  # which covers all
    assert ear.cover().watched == depth + 1
    ear.watcher.drain()
    chain(source, depth, b"g", False)
    assert ear.watcher.drain().ready == {b"nest/" * number + b"g" for number in range(1, depth + 1)}
    subprocess.run(["rm", "-rf", source / "nest"], check=True)  # shutil cannot
    assert b"nest" in ear.watcher.drain().removed


@pytest.mark.slow
def test_a_checkout_while_nobody_reads(ear, source):
    """Far more events than the queue holds: the thread has to keep up."""
    for number in range(100):
        (source / f"d{number}").mkdir()
    paths = [b"d%d/f%d" % (number % 100, number) for number in range(50_000)]
    top = os.fsencode(source) + b"/"
    for path in paths:
        os.close(os.open(top + path, os.O_WRONLY | os.O_CREAT))
    hints = ear.watcher.drain()
    assert not hints.rescan
    assert hints.ready == frozenset(paths)


def test_the_descriptor_is_readable_while_there_is_something(ear, source):
    ear.watcher.drain()
    assert not ear.watcher.read()
    (source / "f").write_bytes(b"")
    ear.until(lambda hints: b"f" in hints.ready)
    (source / "ignored").mkdir()
    (source / "g").write_bytes(b"")
    ear.until(lambda hints: b"g" in hints.ready)
    assert b"ignored" not in ear.hints.waiting


@contextlib.contextmanager
def shortest_queue() -> Iterator[None]:
    """A queue takes the limit that holds when it is made."""
    path = Path("/proc/sys/fs/inotify/max_queued_events")
    before = path.read_text()
    try:
        path.write_text("1")
    except OSError as error:
        pytest.skip(f"the limit of the queue cannot be lowered: {error.strerror}")
    try:
        yield
    finally:
        path.write_text(before)


def test_an_overflow_is_told_and_healed(tmp_path):
    source, kernel = tmp_path / "source", kernel_for("inotify")
    source.mkdir()
    with shortest_queue():
        watcher = make("inotify", os.fsencode(source), kernel, None)
    ear = Ear(watcher, kernel, source)
    ear.cover()
    deadline = time.monotonic() + 20
    number = 0
    while not ear.hints.rescan:
        assert time.monotonic() < deadline
        (source / f"x{number}/y").mkdir(parents=True)
        (source / f"x{number}").rename(source / f"z{number}")
        number += 1
        ear.take(ear.watcher.read())
    ear.cover()
    assert watched_below(source) == 1 + 2 * number
    ear.watcher.close()


# --- O_TMPFILE and others ------------------------------------------------------------------------------


def test_a_file_without_a_name_is_nobody(ear, source):
    fd = os.open(source, os.O_TMPFILE | os.O_WRONLY)
    os.write(fd, b"x")
    os.link(f"/proc/self/fd/{fd}", source / "f", src_dir_fd=fd, follow_symlinks=True)
    os.close(fd)
    (source / "l").symlink_to("f")
    os.link(source / "f", source / "h")
    hints = ear.watcher.drain()
    assert b"f" in hints.waiting
    assert {b"l", b"h"} <= hints.waiting
    assert [path for path in hints.ready | hints.waiting if path.startswith(b"#")] == []


UNREADABLE = """
import errno, os, sys
from pathlib import Path
from tests.watching import Ear, kernel_for, make

source, kernel = Path(sys.argv[1]), kernel_for("inotify")
ear = Ear(make("inotify", os.fsencode(source), kernel, None), kernel, source)
(source / "d/e/f").mkdir(parents=True)
(source / "d/e").chmod(0)
covered = ear.cover()
assert (covered.refused, covered.errno, covered.watched) == ((b"d/e",), errno.EACCES, 2), covered
(source / "d/e").chmod(0o700)
ear.expect(b"d/e/f")
assert not ear.watcher.drain().rescan
(source / "d/e/f/new").write_bytes(b"")
assert ear.watcher.drain().ready == {b"d/e/f/new"}
(source / "d/e").chmod(0o600)  # to be listed, not to be entered
ear.cover()
(source / "d/e").chmod(0o700)
ear.watcher.drain()
(source / "d/e/f/more").write_bytes(b"")
assert ear.watcher.drain().ready == {b"d/e/f/more"}
"""


def test_a_directory_that_becomes_readable(source):
    """Without the right to read everything, which root has."""
    source.mkdir()
    drop = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
    command = [*drop, sys.executable, "-c", UNREADABLE, source]
    done = subprocess.run(command, cwd=Path(__file__).parents[3], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr


# --- ends --------------------------------------------------------------------------------------------


def threads() -> int:
    names = []
    for task in Path("/proc/self/task").iterdir():
        try:
            names.append((task / "comm").read_text())
        except FileNotFoundError:
            pass
    return names.count("syncd-inotify\n")


def queues() -> int:
    found = 0
    for name in os.listdir("/proc/self/fd"):
        try:
            found += bool(re.search("inotify|eventfd", os.readlink(f"/proc/self/fd/{name}")))
        except FileNotFoundError:
            pass
    return found


def test_a_forgotten_watcher_ends(source, tmp_path):
    gc.collect()
    before = threads(), queues()
    for _ in range(3):
        make("inotify", os.fsencode(tmp_path), kernel_for("inotify"), None)
    gc.collect()
    deadline = time.monotonic() + 10
    while (threads(), queues()) != before:
        assert time.monotonic() < deadline
        os.sched_yield()


def test_closing_while_others_call(ear, source):
    """`close` may come from another thread at any time."""
    (source / "d").mkdir()

    def call() -> None:
        for _ in range(200):
            ear.watcher.read()
            ear.watcher.drain()
            ear.cover()

    thread = threading.Thread(target=call)
    thread.start()
    ear.watcher.close()
    thread.join()
    assert not ear.watcher.drain()
