"""How editors and programs save: after each way `flush` answers 0 and the trees are equal."""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.compare import assert_equal
from tests.integration.conftest import Place
from tests.integration.watching import Watching, watching

pytestmark = pytest.mark.kernel

NAME = "work.txt"
OLD, NEW = b"one line\n" * 20, b"another line\n" * 30
AT_EMPTY_PATH, AT_FDCWD, EXCHANGE = 0x1000, -100, 2


@pytest.fixture
def outside_tmp(place: Place) -> Iterator[Place]:
    """The same, with the source where vim makes backups: not below /tmp."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    cache.mkdir(exist_ok=True)
    source = Path(tempfile.mkdtemp(prefix="syncd-test-", dir=cache))
    try:
        yield Place(source, place.target, place.home)
    finally:
        shutil.rmtree(source)


def saved(watch: Watching, name: str = NAME) -> None:
    """A save came through: without a flush, then with one."""
    source, target = watch.source / name, watch.target / name
    deadline = time.monotonic() + 10
    while not (target.is_file() and target.read_bytes() == source.read_bytes()):
        assert time.monotonic() < deadline, f"{name} did not arrive by itself"
        time.sleep(0.005)
    assert_flushed(watch)


def assert_flushed(watch: Watching) -> None:
    answer = watch.run("flush")
    assert answer.returncode == 0, answer.stderr
    assert_equal(watch.source, watch.target, leave_out=(b"work.txt~",))


# --- editors ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backupcopy", ["yes", "no", "auto"])
@pytest.mark.skipif(shutil.which("vim") is None, reason="vim is not installed")
def test_vim(outside_tmp: Place, backupcopy: str) -> None:
    file = outside_tmp.source / NAME
    file.write_bytes(OLD)
    with watching(*outside_tmp) as watch:
        for number in range(3):
            script = [f"set backup writebackup backupcopy={backupcopy}", f"normal! ggOsave {number}", "wq"]
            commands = [word for line in script for word in ("-c", line)]
            subprocess.run(["vim", "-Nu", "NONE", "-es", *commands, str(file)], check=True, timeout=30)
            assert f"save {number}".encode() in file.read_bytes()
            saved(watch)
        assert file.with_name(NAME + "~").exists(), "vim made no backup"
    assert sorted(os.listdir(outside_tmp.target)) == [NAME]


def vscode(file: Path) -> None:
    """Truncates and writes the file itself."""
    with open(file, "r+b") as out:
        out.truncate(0)
        out.write(NEW)


def jetbrains(file: Path) -> None:
    """Writes beside, moves the old one away, the new one in, and drops the old one."""
    beside, old = file.with_name(f"{file.name}___jb_tmp___"), file.with_name(f"{file.name}___jb_old___")
    beside.write_bytes(NEW)
    file.rename(old)
    beside.rename(file)
    old.unlink()


def emacs(file: Path) -> None:
    """Moves the file to its backup, then writes a new one; a lock link stands beside it meanwhile."""
    lock = file.with_name(f".#{file.name}")
    lock.symlink_to("user@host.1234:1700000000")
    file.with_name(f"#{file.name}#").write_bytes(NEW[:100])
    file.rename(file.with_name(f"{file.name}~"))
    file.write_bytes(NEW)
    file.with_name(f"#{file.name}#").unlink()
    lock.unlink()


def emacs_by_copying(file: Path) -> None:
    """As with `backup-by-copying`."""
    shutil.copy2(file, file.with_name(f"{file.name}~"))
    file.write_bytes(NEW)


def sed(file: Path) -> None:
    subprocess.run(["sed", "-i", "s/one/another/", str(file)], check=True)


def rename_over(file: Path) -> None:
    beside = file.with_name(".work.txt.tmp")
    beside.write_bytes(NEW)
    os.replace(beside, file)


def rename_over_unnoticed_size_and_time(file: Path) -> None:
    """Another file of the same size and mtime."""
    about = file.stat()
    beside = file.with_name("other")
    beside.write_bytes(file.read_bytes().swapcase())
    os.utime(beside, ns=(about.st_atime_ns, about.st_mtime_ns))
    os.replace(beside, file)


def remove_and_make(file: Path) -> None:
    file.unlink()
    file.write_bytes(NEW)


def same_size_and_time(file: Path) -> None:
    about = file.stat()
    with open(file, "r+b") as out:
        out.write(OLD.upper())
    os.utime(file, ns=(about.st_atime_ns, about.st_mtime_ns))
    assert file.stat().st_size == about.st_size


def shrink(file: Path) -> None:
    os.truncate(file, 5)


def mapped(file: Path) -> None:
    """Stores into a mapping; the word comes when it is unmapped."""
    fd = os.open(file, os.O_RDWR)
    memory = mmap.mmap(fd, 0)
    os.close(fd)
    memory[:3] = b"MAP"
    memory.flush()
    memory[4:8] = b"AGED"
    memory.close()


def unnamed(file: Path) -> None:
    """O_TMPFILE, then a name: first a new one, then renamed over."""
    fd = os.open(file.parent, os.O_TMPFILE | os.O_RDWR, 0o644)
    os.write(fd, NEW)
    give_name(fd, file.with_name("named.txt"))
    os.replace(file.with_name("named.txt"), file)


def give_name(fd: int, name: Path) -> None:
    """Link an unnamed file, and close it."""
    links = os.open("/proc/self/fd", os.O_RDONLY | os.O_DIRECTORY)
    os.link(str(fd), name, src_dir_fd=links, follow_symlinks=True)
    os.close(links)
    os.close(fd)


def copied(file: Path) -> None:
    shutil.copy2(sys.executable, file)


SAVES = [
    vscode,
    jetbrains,
    emacs,
    emacs_by_copying,
    sed,
    rename_over,
    rename_over_unnoticed_size_and_time,
    remove_and_make,
    same_size_and_time,
    shrink,
    mapped,
    unnamed,
    copied,
]


@pytest.mark.parametrize("save", SAVES, ids=lambda save: save.__name__)
def test_save(place: Place, save: Callable[[Path], None]) -> None:
    file = place.source / NAME
    file.write_bytes(OLD)
    with watching(*place) as watch:
        for _ in range(3):
            file.write_bytes(OLD)
            assert_flushed(watch)
            save(file)
            saved(watch)
        temporary = [name for name in os.listdir(place.target) if name not in ("a.txt", "dir", NAME)]
        assert temporary == []


# --- programs -----------------------------------------------------------------------------------------


def test_a_file_gets_its_name_only_when_it_is_whole(place: Place) -> None:
    with watching(*place) as watch:
        fd = os.open(place.source, os.O_TMPFILE | os.O_RDWR, 0o640)
        os.write(fd, NEW)
        give_name(fd, place.source / "whole.txt")
        saved(watch, "whole.txt")


def test_writes_through_a_link_outside_arrive_at_the_next_flush(place: Place) -> None:
    outside = place.source.with_name("outside.txt")
    outside.write_bytes(OLD)
    os.link(outside, place.source / NAME)
    with watching(*place) as watch:
        for number in range(3):
            about = outside.stat()
            with open(outside, "r+b") as out:
                out.write(b"%d" % number)
            os.utime(outside, ns=(about.st_atime_ns, about.st_mtime_ns))
            assert_flushed(watch)


def test_writes_through_another_name_inside(place: Place) -> None:
    """The link is made while watched, and the word is on the other name only."""
    file, other = place.source / NAME, place.source / "dir" / "other"
    file.write_bytes(OLD)
    with watching(*place) as watch:
        os.link(file, other)
        assert_flushed(watch)
        with open(other, "r+b") as out:
            out.write(b"through the other name")
        assert_flushed(watch)
        other.unlink()
        with open(file, "r+b") as out:
            out.write(b"alone again")
        assert_flushed(watch)


def test_two_names_exchanged(place: Place) -> None:
    source = place.source
    (source / "tree").mkdir()
    (source / "tree" / "inside").write_bytes(NEW)
    with watching(*place) as watch:
        for one, other in (("a.txt", "dir/b.txt"), ("dir", "tree"), ("a.txt", "tree")):
            exchange(source / one, source / other)
            assert_flushed(watch)
            exchange(source / one, source / other)
            assert_flushed(watch)
        exchange(source / "dir", source / "tree")
        (source / "dir" / "inside").write_bytes(b"written where it is now")
        (source / "tree" / "b.txt").write_bytes(b"and this one")
        assert_flushed(watch)


@pytest.mark.parametrize("kind", ["file", "link", "directory"])
def test_a_known_name_exchanged_with_a_new_one(place: Place, kind: str) -> None:
    """The last word on the new name is that it went; something stands there all the same."""
    with watching(*place) as watch:
        new = place.source / "dir" / "new"
        if kind == "file":
            new.write_text("new")
        elif kind == "link":
            new.symlink_to("b.txt")
        else:
            new.mkdir()
        exchange(place.source / "dir" / "b.txt", new)
        assert_flushed(watch)
        assert (place.target / "dir" / "new").read_text() == "b"


def exchange(one: Path, other: Path) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.renameat2(AT_FDCWD, bytes(one), AT_FDCWD, bytes(other), EXCHANGE) != 0:
        raise OSError(ctypes.get_errno(), "renameat2")


def test_a_log_held_open_and_appended(place: Place) -> None:
    with watching(*place) as watch, open(place.source / "app.log", "ab", buffering=0) as log:
        for number in range(5):
            log.write(b"line %d\n" % number)
            answer = watch.run("flush")
            assert answer.returncode == 0, answer.stderr
            assert (place.target / "app.log").read_bytes() == (place.source / "app.log").read_bytes()
        log.write(b"and one more that nobody asks for\n")
        saved(watch, "app.log")


def test_a_directory_moved_out_and_back_in(place: Place) -> None:
    source, target, _ = place
    tree, outside = source / "tree", source.with_name("outside")
    for number in range(30):
        (tree / f"d{number % 5}").mkdir(parents=True, exist_ok=True)
        (tree / f"d{number % 5}" / f"f{number}").write_text(f"{number}")
    with watching(*place) as watch:
        tree.rename(outside)
        assert_flushed(watch)
        assert not (target / "tree").exists()
        (outside / "d1" / "unseen").write_text("written outside")
        outside.rename(tree)
        assert_flushed(watch)
        (tree / "d2" / "seen").write_text("written inside again")
        saved(watch, "tree/d2/seen")
        tree.rename(outside)
        (outside / "d1" / "unseen").write_text("at once back")
        outside.rename(tree)
        assert_flushed(watch)
        (tree / "d1" / "unseen").write_text("still watched")
        saved(watch, "tree/d1/unseen")


def test_a_big_directory_renamed(place: Place) -> None:
    source = place.source
    for number in range(3000):
        folder = source / "big" / f"d{number % 40}"
        if number < 40:
            folder.mkdir(parents=True)
        (folder / f"f{number}").write_bytes(b"%d" % number * 50)
    with watching(*place) as watch:
        (source / "big").rename(source / "bigger")
        assert_flushed(watch)
        (source / "bigger" / "d7" / "f7").write_text("in its new place")
        saved(watch, "bigger/d7/f7")
        (source / "bigger").rename(source / "dir" / "inside another")
        (source / "dir" / "inside another" / "d8" / "f8").write_text("at once")
        assert_flushed(watch)
        assert not (place.target / "bigger").exists()


def test_a_name_that_changes_its_kind(place: Place) -> None:
    at = place.source / "thing"
    with watching(*place) as watch:
        at.mkdir()
        (at / "inside").write_text("inside")
        assert_flushed(watch)
        shutil.rmtree(at)
        at.write_text("a file now")
        saved(watch, "thing")
        at.unlink()
        at.symlink_to("a.txt")
        assert_flushed(watch)
        at.unlink()
        at.mkdir()
        (at / "inside").write_text("a directory again")
        saved(watch, "thing/inside")


def test_a_watched_copy_is_never_torn_by_a_writer_that_pauses(place: Place) -> None:
    """Versions of 300 kB, each in pieces with the file held open: whatever arrives is one version."""
    file = place.source / "pieces"
    with watching(*place) as watch:
        for version in range(20):
            with open(file, "wb", buffering=0) as out:
                for _ in range(6):
                    out.write(bytes([65 + version]) * 50_000)
                    with contextlib.suppress(FileNotFoundError):
                        arrived = (place.target / "pieces").read_bytes()
                        assert len(set(arrived)) <= 1
        saved(watch, "pieces")
