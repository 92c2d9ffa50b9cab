"""Trouble of every kind: the stated behaviour, nothing lost, and recovery without a restart."""

from __future__ import annotations

import errno
import json
import os
import resource
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

import pytest

from syncd.model.report import CycleReport
from syncd.model.settings import Timing
from tests.compare import are_equal, assert_equal, read_tree
from tests.fusefs import faulty
from tests.integration.conftest import Place
from tests.integration.engine import Engine
from tests.integration.watching import Watching, environment, run, watching, without_rights
from tests.machine import call, eventually, loop, mounted, needs_root, sysctl, tmpfs, unmount

pytestmark = pytest.mark.kernel

FEW = 40  # events, or watches, or directories: less than a test makes


def fill(where: Path, directories: int = 10, files: int = 60, size: int = 100) -> None:
    for number in range(files):
        folder = where / f"d{number % directories}" / "deep"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"f{number}").write_bytes((b"%d " % number).ljust(size, b"."))


OWN = (b".syncd",)  # staging inside a target that is a mount point


def assert_flushed(watch: Watching) -> None:
    answer = watch.run("flush")
    assert answer.returncode == 0, answer.stderr
    assert_equal(watch.source, watch.target, leave_out=OWN)


def assert_recovers(watch: Watching, limit: float = 40.0) -> None:
    """Equal by itself: nobody asks for a flush. Then a flush agrees, and status has nothing to tell."""

    def well() -> bool:
        status = watch.status()
        return status["state"] == "in sync" and not status["problems"] and are_equal(watch.source, watch.target, OWN)

    eventually(well, f"no recovery: {watch.status()['line']}", limit)
    assert_flushed(watch)


def assert_halts(watch: Watching, word: str) -> None:
    """Says so with the word, and flush answers at once."""
    eventually(lambda: word in str(watch.status()["halt"]), f"no halt with {word!r}", 20)
    assert watch.flush() == 5


def problems(watch: Watching) -> set[tuple[str, int]]:
    return {(problem["path"], problem["errno"]) for problem in watch.status()["problems"]}


# --- the watcher's limits -----------------------------------------------------------------------------


@needs_root
@pytest.mark.timeout(120)
def test_a_queue_that_overflows(place: Place) -> None:
    source, target, home = place
    fill(source)
    with sysctl("fs/inotify/max_queued_events", FEW):
        watch = Watching(source, target, home)
        try:
            watch.report()
        except BaseException:
            watch.close()
            raise
    try:
        for turn in range(3):
            watch.process.send_signal(signal.SIGSTOP)
            fill(source / f"new{turn}", files=200)
            shutil.rmtree(source / "d3", ignore_errors=True)
            for number in range(100):
                (source / "d1" / "deep" / f"g{number}").write_text(f"{turn}")
            (source / "d2").rename(source / f"renamed{turn}")
            (source / f"renamed{turn}" / "deep").rename(source / "d2") if turn else (source / "d2").mkdir()
            (source / "d2" / "deep").mkdir(exist_ok=True)
            watch.process.send_signal(signal.SIGCONT)
            record = watch.until("full")
            assert record["halt"] is None
            assert_recovers(watch)
        (source / "d1" / "deep" / "g1").write_text("alone again")
        eventually(lambda: (target / "d1" / "deep" / "g1").read_text() == "alone again", "a save did not arrive")
    finally:
        watch.process.send_signal(signal.SIGCONT)
        watch.close()


@needs_root
def test_too_few_watches(place: Place) -> None:
    """Set for a user namespace of its own, so that nobody else is short of watches."""
    source, target, home = place
    fill(source, directories=60)
    limit = f'echo {FEW} > /proc/sys/user/max_inotify_watches && exec "$@"'
    prefix = ["unshare", "--user", "--map-root-user", "sh", "-c", limit, "sh"]
    with watching(source, target, home, prefix=prefix) as watch:
        status = watch.status()
        assert status["watched"] <= FEW
        assert status["bound"] > 0, "the rest is polled, and status says how often"
        assert "_watches" in json.dumps(status["notes"]), "the message names the limit"
        for number in (1, 30, 59):
            (source / f"d{number}" / "deep" / f"f{number}").write_text("edited")
        eventually(lambda: are_equal(source, target), "polled places did not arrive", status["bound"] + 5)
        (source / "d59" / "deeper").mkdir()
        (source / "d59" / "deeper" / "new").write_text("new")
        shutil.rmtree(source / "d58")
        assert_recovers(watch)


def test_no_descriptors_left(place: Place) -> None:
    """The limit of a running watch falls to what it has open: nothing is removed, and it goes on afterwards."""
    source, target, home = place
    fill(source)
    with watching(source, target, home) as watch:
        pid = watch.process.pid
        before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        eventually(lambda: watch.status()["state"] == "in sync", "not in sync")
        lowest = len(os.listdir(f"/proc/{pid}/fd"))
        for spare in (0, 1, 2, 3, 5):
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (lowest + spare, before[1]))
            was = read_tree(target)
            (source / "a.txt").write_text(f"with {spare} to spare")
            shutil.rmtree(source / f"d{spare}")
            (source / f"new{spare}" / "deep").mkdir(parents=True)
            (source / f"new{spare}" / "deep" / "file").write_text("new")
            trouble_or_done(watch, lambda: are_equal(source, target))
            gone = was.keys() - read_tree(target).keys()
            assert all(path.split(b"/")[0] == b"d%d" % spare for path in gone)
            resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
            assert_recovers(watch)
        assert watch.process.poll() is None


def trouble_or_done(watch: Watching, done: Callable[[], bool]) -> None:
    """Until a record tells of trouble, or all went well in spite of it."""

    def either() -> bool:
        last = watch.passed()[-1]
        return bool(last["halt"] or last["problems"]) or done()

    eventually(either, "neither trouble nor success")


def test_few_descriptors_from_the_start(place: Place) -> None:
    source, target, home = place
    fill(source, directories=40, files=400)
    with watching(source, target, home, prefix=["prlimit", "--nofile=40"]) as watch:
        assert_flushed(watch)
        shutil.rmtree(source / "d7")
        fill(source / "new", directories=30, files=90)
        assert_flushed(watch)


# --- the target ---------------------------------------------------------------------------------------


@needs_root
@pytest.mark.timeout(120)
def test_a_full_target_is_freed(place: Place, tmp_path: Path) -> None:
    source, _, home = place
    fill(source, files=40, size=10_000)
    with tmpfs(tmp_path / "small", "4m") as small:
        target = small / "target"
        with watching(source, target, home) as watch:
            assert_flushed(watch)
            filler = small / "filler"
            fill_up(filler)
            before = read_tree(target)
            for number in range(30):
                (source / f"big{number}").write_bytes(os.urandom(50_000))
            (source / "d1" / "deep" / "f1").write_bytes(b"y" * 200_000)
            eventually(lambda: problems(watch) == {("", errno.ENOSPC)}, "no problem of the pair, or more than one")
            assert watch.status()["state"] == "waiting"
            assert watch.flush() == 3
            now = read_tree(target)
            wanted = read_tree(source)
            for path, seen in now.items():
                assert seen in (before.get(path), wanted.get(path)), f"{path!r} is half made"
            assert leftovers(small, home) == []
            shutil.rmtree(source / "d2")
            eventually(lambda: not (target / "d2").exists(), "a removal, which makes room, waits for room")
            filler.unlink()
            assert_recovers(watch, 60)
            assert leftovers(small, home) == []


@needs_root
@pytest.mark.timeout(120)
@pytest.mark.parametrize("when", ["watched", "synced"])
def test_one_file_that_does_not_fit_stops_nothing_else(place: Place, tmp_path: Path, when: str) -> None:
    source, _, home = place
    fill(source, files=20)
    with tmpfs(tmp_path / "small", "3m") as small:
        target = small / "target"
        with watching(source, target, home) as watch:
            assert_flushed(watch)
            if when == "synced":
                watch.stop()
            (source / "d1" / "huge").write_bytes(os.urandom(5_000_000))
            if when == "watched":
                eventually(lambda: problems(watch) == {("d1/huge", errno.ENOSPC)}, "no problem of the file")
            (source / "a.txt").write_text("edited")
            (source / "d1" / "new").write_text("new")
            (source / "z").mkdir()
            (source / "z" / "last").write_text("new")
            if when == "watched":
                eventually((target / "z" / "last").exists, "it waits for the one that does not fit")
                assert watch.flush() == 3
            else:
                done = run("sync", str(source), str(target), env=watch.env)
                assert (done.returncode, "d1/huge: write failed on the target (ENOSPC)" in done.stderr) == (3, True)
            left = {
                path.relative_to(source)
                for path in source.rglob("*")
                if not (target / path.relative_to(source)).exists()
            }
            assert left == {Path("d1/huge")}
            assert (target / "a.txt").read_text() == "edited"
            assert leftovers(small, home) == []
            if when == "watched":
                (source / "d1" / "huge").write_bytes(b"small")
                assert_recovers(watch, 60)


@needs_root
def test_what_fits_in_the_end_is_reached_also_where_little_room_is_left(place: Place, tmp_path: Path) -> None:
    """Each file that is replaced makes room for the next one, but not all at once."""
    source, _, home = place
    with tmpfs(tmp_path / "small", "3m") as small:
        pair, env = (str(source), str(small / "target")), environment(home)
        for name in ("a", "b"):
            (source / name).write_bytes(os.urandom(1_000_000))
        assert run("sync", *pair, env=env).returncode == 0
        for name in ("a", "b"):
            (source / name).write_bytes(os.urandom(1_000_000))
        (source / "c").write_bytes(os.urandom(600_000))
        done = run("sync", *pair, env=env)
        assert done.returncode == 0, done.stderr
        assert_equal(source, small / "target")


def fill_up(filler: Path) -> None:
    """Write until the filesystem takes no more."""
    fd = os.open(filler, os.O_WRONLY | os.O_CREAT)
    try:
        while os.write(fd, b"x" * 4096):
            pass
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
    finally:
        os.close(fd)


def leftovers(*tops: Path) -> list[Path]:
    """Files under temporary names."""
    names = ("new-*", "old-*", ".syncd-*")
    return [path for top in tops for name in names for path in top.rglob(name)]


@needs_root
def test_a_first_copy_that_does_not_fit_is_refused(place: Place, tmp_path: Path) -> None:
    source, _, home = place
    (source / "big").write_bytes(b"x" * (6 << 20))
    with tmpfs(tmp_path / "small", "4m") as small:
        watch = Watching(source, small / "target", home)
        assert watch.process.wait(30) == 5
        assert "fit" in watch.errors()
        watch.close()
        assert list((small / "target").iterdir()) == []


@needs_root
@pytest.mark.timeout(120)
def test_a_target_read_only_and_back(place: Place, tmp_path: Path) -> None:
    source, _, home = place
    fill(source)
    with tmpfs(tmp_path / "disk") as disk, watching(source, disk / "target", home) as watch:
        assert_flushed(watch)
        call("mount", "-o", "remount,ro", disk)
        (source / "a.txt").write_text("cannot be written")
        (source / "d1" / "deep" / "f1").unlink()
        eventually(lambda: problems(watch) == {("", errno.EROFS)}, "no problem of the pair")
        assert watch.flush() == 3
        call("mount", "-o", "remount,rw", disk)
        assert_recovers(watch)


def test_a_target_that_is_replaced(place: Place) -> None:
    source, target, home = place
    fill(source)
    with watching(source, target, home) as watch:
        target.rename(target.with_name("away"))
        target.mkdir()
        (target / "somebody's").write_text("own")
        (source / "a.txt").write_text("not into this one")
        assert_halts(watch, "another directory")
        assert os.listdir(target) == ["somebody's"]
        assert (target.with_name("away") / "a.txt").read_text() == "a"
        shutil.rmtree(target)
        assert_halts(watch, "cannot be opened")
        target.with_name("away").rename(target)
        assert_recovers(watch)


@needs_root
def test_a_target_unmounted_and_back(place: Place, tmp_path: Path) -> None:
    source, _, home = place
    fill(source)
    with tmpfs(tmp_path / "disk") as disk:
        (disk / "t").mkdir()
        target = tmp_path / "target"
        with mounted(target, "--bind", disk / "t"), watching(source, target, home) as watch:
            assert_flushed(watch)
            call("umount", "--lazy", target)  # its lock and its staging keep it busy
            (source / "a.txt").write_text("saved while it was away")
            assert_halts(watch, "another directory")
            assert list(target.iterdir()) == [], "nothing is written below the mount point"
            call("mount", "--bind", disk / "t", target)
            assert_recovers(watch)


# --- the source ---------------------------------------------------------------------------------------


@needs_root
def test_a_source_unmounted_and_back(place: Place, tmp_path: Path) -> None:
    _, target, home = place
    with tmpfs(tmp_path / "disk") as disk:
        fill(disk / "s")
        source = tmp_path / "mounted"
        with mounted(source, "--bind", disk / "s"), watching(source, target, home) as watch:
            assert_flushed(watch)
            before = read_tree(target)
            unmount(source)
            assert_halts(watch, "empty")
            assert read_tree(target) == before
            (disk / "s" / "d1" / "deep" / "f1").write_text("while away")
            call("mount", "--bind", disk / "s", source)
            assert_recovers(watch)
            (source / "d1" / "deep" / "f1").write_text("watched again")
            eventually(lambda: (target / "d1" / "deep" / "f1").read_text() == "watched again", "no longer watched")


@needs_root
def test_another_filesystem_mounted_over_the_source(place: Place) -> None:
    source, target, home = place
    fill(source)
    with watching(source, target, home) as watch:
        before = read_tree(target)
        with tmpfs(source):
            assert_halts(watch, "empty")
            assert read_tree(target) == before
        assert_recovers(watch)


@needs_root
@pytest.mark.filterwarnings("ignore:The asyncore module is deprecated")  # the package pyinotify imports it
def test_another_filesystem_mounted_over_the_source_as_the_first_cycle_ends(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the engine begins to wait for anything."""
    source, target, home = place
    fill(source)
    for name, value in environment(home).items():
        monkeypatch.setenv(name, value)
    with ExitStack() as stack:

        def mount(done: CycleReport) -> None:
            if done.number == 1:
                stack.enter_context(tmpfs(source))

        engine = Engine(source, target, Timing(), mount)
        try:
            before = read_tree(target)
            eventually(lambda: "empty" in str(engine.runner.status.halt), "no halt", 20)
            assert read_tree(target) == before
        finally:
            engine.close()


@needs_root
@pytest.mark.parametrize("how", ["watched", "watched anew", "synced again"])
@pytest.mark.parametrize("fstype", ["ext4", "xfs", "tmpfs"])
def test_another_disk_at_the_place_of_the_source(place: Place, fstype: str, how: str) -> None:
    """Its root has the same device and inode, and looks like the old one from which something was removed."""
    source, target, home = place
    source.mkdir(exist_ok=True)

    def disk() -> AbstractContextManager[Path]:
        return tmpfs(source) if fstype == "tmpfs" else loop(fstype, source)

    with ExitStack() as stack:
        with disk():
            fill(source, files=30)
            watch = stack.enter_context(watching(source, target, home))
            before = read_tree(target)
            if how != "watched":
                assert watch.stop() == 0
        with disk():
            (source / "d1").mkdir()
            (source / "another").write_text("disk")
            if how == "watched":
                assert_halts(watch, "another directory")
            elif how == "synced again":
                assert run("sync", str(source), str(target), env=environment(home)).returncode == 5
            else:
                anew = stack.enter_context(watching(source, target, home))
                assert_halts(anew, "another directory")
            now = read_tree(target)
            assert {path: now.get(path) for path in before} == before


def test_a_source_that_goes_away_and_comes_back(place: Place) -> None:
    source, target, home = place
    fill(source)
    with watching(source, target, home) as watch:
        before = read_tree(target)
        source.rename(source.with_name("away"))
        assert_halts(watch, "cannot be opened")
        assert read_tree(target) == before
        (source.with_name("away") / "d1" / "deep" / "f1").write_text("while away")
        source.with_name("away").rename(source)
        assert_recovers(watch)
        (source / "d1" / "deep" / "f1").write_text("watched again")
        eventually(lambda: (target / "d1" / "deep" / "f1").read_text() == "watched again", "no longer watched")


def test_a_source_that_is_emptied_and_filled_again(place: Place) -> None:
    source, target, home = place
    fill(source)
    with watching(source, target, home) as watch:
        before = read_tree(target)
        watch.process.send_signal(signal.SIGSTOP)  # what is seen half done is believed
        state = Path(f"/proc/{watch.process.pid}/status")
        eventually(lambda: "State:\tT" in state.read_text(), "it did not stop")
        for path in source.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        watch.process.send_signal(signal.SIGCONT)
        assert_halts(watch, "empty")
        assert read_tree(target) == before
        fill(source, files=70)
        (source / "a.txt").write_text("a")
        assert_recovers(watch)


def test_a_source_that_is_replaced(place: Place) -> None:
    """Another directory in its place that lacks what was mirrored is not believed; one that has it all is."""
    source, target, home = place
    fill(source, files=30)
    other = source.with_name("other")
    other.mkdir()
    (other / "only").write_text("this")
    whole = source.with_name("whole")
    shutil.copytree(source, whole)
    (whole / "more").write_text("more")
    with watching(source, target, home) as watch:
        before = read_tree(target)
        source.rename(source.with_name("away"))
        other.rename(source)
        assert_halts(watch, "another directory")
        assert read_tree(target) == before
        source.rename(other)
        whole.rename(source)
        assert_recovers(watch)
        (source / "d1" / "deep" / "f1").write_text("the new one is watched")
        eventually(lambda: (target / "d1" / "deep" / "f1").read_text() == "the new one is watched", "not watched")


@needs_root
def test_a_mount_inside_the_source_goes_and_comes(place: Place, tmp_path: Path) -> None:
    source, target, home = place
    fill(source)
    with tmpfs(tmp_path / "disk") as disk:
        fill(disk / "inner", files=150)
        inside = source / "d1" / "inside"
        with mounted(inside, "--bind", disk / "inner"), watching(source, target, home) as watch:
            assert_flushed(watch)
            before = read_tree(target / "d1" / "inside")
            assert before
            unmount(inside)
            eventually(lambda: problems(watch) == {("d1/inside", errno.ENODEV)}, "a mount that is gone is no problem")
            assert read_tree(target / "d1" / "inside") == before
            (source / "a.txt").write_text("the rest goes on")
            eventually(lambda: (target / "a.txt").read_text() == "the rest goes on", "the rest stands still")
            answer = watch.run("flush")
            assert answer.returncode == 3
            assert "d1/inside" in answer.stderr
            assert read_tree(target / "d1" / "inside") == before
            (disk / "inner" / "d3" / "deep" / "f3").write_text("behind the mount")
            call("mount", "--bind", disk / "inner", inside)
            assert_recovers(watch)


@needs_root
@pytest.mark.timeout(120)
def test_a_source_whose_events_lie_from_now_on_is_polled(place: Place, tmp_path: Path) -> None:
    """A share that is mounted at the source's place while the watch runs."""
    source, target, home = place
    fill(source)
    shutil.copytree(source, tmp_path / "behind", copy_function=shutil.copy2)
    with watching(source, target, home) as watch:
        assert watch.status()["bound"] == 0
        with faulty(tmp_path / "behind", source):
            eventually(lambda: watch.status()["bound"] > 0, "it is not polled")
            (tmp_path / "behind" / "d1" / "deep" / "f1").write_text("no event tells of it")
            eventually(lambda: are_equal(tmp_path / "behind", target), "it is not seen")
        assert_recovers(watch)
        assert watch.status()["bound"] == 0


@needs_root
@pytest.mark.timeout(120)
def test_nothing_is_written_through_a_mount_in_the_target(place: Place, tmp_path: Path) -> None:
    """A directory and a file of the source itself, and a file from elsewhere, that look like what they cover."""
    source, target, home = place
    for name in ("one", "two"):
        (source / name).mkdir()
        (source / name / "same").write_text("same")
        (source / name / "gone").write_text("same")
        (source / f"{name}.txt").write_text("same")
    outside = tmp_path / "outside"
    outside.write_text("same")
    with watching(source, target, home) as watch, ExitStack() as mounts:
        mounts.enter_context(mounted_file(target / "two", source / "one"))
        mounts.enter_context(mounted_file(target / "two.txt", source / "one.txt"))
        mounts.enter_context(mounted_file(target / "a.txt", outside))
        covered = {("two", errno.EBUSY), ("two.txt", errno.EBUSY), ("a.txt", errno.EBUSY)}
        eventually(lambda: problems(watch) == covered, "a mount is no problem")
        (source / "two" / "same").write_text("EDIT")
        (source / "two" / "gone").unlink()
        (source / "two.txt").write_text("EDIT")
        (source / "a.txt").write_text("EDIT")
        assert watch.flush() == 3
        assert watch.run("verify").returncode == 3
        assert watch.run("pull", ".").returncode == 3
        assert {path.read_text() for path in ((source / "one" / "same"), (source / "one.txt"), outside)} == {"same"}
        assert (source / "one" / "gone").exists()
        mounts.close()
        assert_recovers(watch)
        assert not watch.status()["drift"]


@needs_root
@pytest.mark.timeout(120)
def test_a_source_that_is_replaced_by_one_whose_events_lie_halts(place: Place, tmp_path: Path) -> None:
    """Also the second look at what it lacks."""
    source, target, home = place
    fill(source)
    behind = tmp_path / "behind"
    behind.mkdir()
    (behind / "a.txt").write_text("a")
    with watching(source, target, home) as watch:
        before = read_tree(target)
        with faulty(behind, source):
            assert_halts(watch, "another directory")
            assert watch.flush() == 5
            assert read_tree(target).keys() == before.keys()
        assert_recovers(watch)


def test_a_source_that_was_emptied_and_fills_slowly_takes_nothing_away(place: Place) -> None:
    source, target, home = place
    fill(source, files=30)
    with watching(source, target, home) as watch:
        before = read_tree(target)
        aside = source.with_name("aside")
        aside.mkdir()
        for path in sorted(source.iterdir()):
            path.rename(aside / path.name)
        assert_halts(watch, "empty")
        for path in sorted(aside.iterdir()):
            path.rename(source / path.name)
            if len(read_tree(source)) < 0.85 * len(before):
                assert watch.flush() == 5
                assert "was empty" in watch.status()["halt"]["reason"]
                assert read_tree(target).keys() == before.keys()
        assert_recovers(watch)


@needs_root
@pytest.mark.timeout(120)
@pytest.mark.parametrize("deed", ["edited", "removed", "both while down"])
def test_what_the_source_does_below_a_directory_that_is_covered_in_the_target(place: Place, deed: str) -> None:
    """Nothing goes into what was mounted over it, and nothing of the mirror's own is taken for the container's."""
    source, target, home = place
    fill(source)
    covered = Path("d3", "deep")
    with ExitStack() as stack:
        watch = stack.enter_context(watching(source, target, home))
        if deed == "both while down":
            watch.stop()
        with tmpfs(target / covered) as cover:
            if deed != "removed":
                (source / covered / "f3").write_text("edited")
            if deed != "edited":
                shutil.rmtree(source / covered)
            if deed == "both while down":
                assert run("sync", str(source), str(target), env=environment(home)).returncode == 3
            else:
                eventually(lambda: problems(watch) == {(str(covered), errno.EBUSY)}, "a mount is no problem")
                assert watch.flush() == 3
            (source / "a.txt").write_text("the rest goes on")
            if deed != "both while down":
                eventually(lambda: (target / "a.txt").read_text() == "the rest goes on", "the rest stands still")
            assert list(cover.iterdir()) == []
        if deed == "both while down":
            watch = stack.enter_context(watching(source, target, home))
        assert_recovers(watch)
        assert not watch.status()["drift"]


@needs_root
@pytest.mark.timeout(120)
def test_a_file_that_is_mounted_by_itself(place: Place, tmp_path: Path) -> None:
    source, target, home = place
    other = tmp_path / "other"
    other.write_text("mounted")
    with watching(source, target, home) as watch, mounted_file(source / "a.txt", other):
        eventually(lambda: (target / "a.txt").read_text() == "mounted", "what is mounted is not mirrored")
        for text in ("edited there", "and once more"):
            (source / "a.txt").write_text(text)
            assert watch.flush() == 0
            assert (target / "a.txt").read_text() == text
        other.write_text("by its other name")
        eventually(lambda: (target / "a.txt").read_text() == "by its other name", "it is not seen")


@contextmanager
def mounted_file(point: Path, file: Path) -> Iterator[None]:
    call("mount", "--bind", file, point)
    try:
        yield
    finally:
        call("umount", "-l", point)


# --- parts that cannot be read ------------------------------------------------------------------------


@needs_root
@pytest.mark.timeout(120)
@pytest.mark.parametrize("number", [errno.EIO, errno.EACCES, errno.ESTALE])
def test_a_part_that_cannot_be_read(place: Place, tmp_path: Path, number: int) -> None:
    behind, target, home = place
    fill(behind)
    with faulty(behind, tmp_path / "mount") as fs, watching(fs.point, target, home) as watch:
        assert_equal(behind, target)
        before = read_tree(target)
        fs.fail({"d3": number, "d4/deep/f4": number})
        (behind / "d3" / "deep" / "f3").write_text("changed where nobody can look")
        (behind / "d3" / "deep" / "f13").unlink()
        (behind / "d4" / "deep" / "f4").unlink()
        (behind / "d5" / "deep" / "f5").unlink()
        eventually(lambda: ("d3", number) in problems(watch), "no problem")
        eventually(lambda: not (target / "d5" / "deep" / "f5").exists(), "the rest stands still")
        answer = watch.run("flush")
        assert answer.returncode == 3
        assert "d3" in answer.stderr
        assert "unknown: " in watch.run("explain", "d3/deep/f3").stdout
        now = read_tree(target)
        assert before.keys() - now.keys() == {b"d5/deep/f5"}
        assert {path: now[path] for path in now if path.startswith(b"d3")} == {
            path: before[path] for path in before if path.startswith(b"d3")
        }
        fs.fail({})
        eventually(lambda: are_equal(behind, target), "no recovery", 40)
        eventually(lambda: not watch.status()["problems"], "the problem stays", 40)
        assert watch.flush() == 0


@needs_root
@pytest.mark.timeout(120)
def test_the_whole_source_cannot_be_read(place: Place, tmp_path: Path) -> None:
    behind, target, home = place
    fill(behind)
    with faulty(behind, tmp_path / "mount") as fs, watching(fs.point, target, home) as watch:
        before = read_tree(target)
        fs.fail(dict.fromkeys(os.listdir(behind), errno.EIO))
        eventually(lambda: len(problems(watch)) == len(os.listdir(behind)), "not every entry is a problem")
        assert watch.flush() == 3
        assert read_tree(target) == before
        fs.fail({})
        eventually(lambda: not watch.status()["problems"], "no recovery", 40)
        assert watch.flush() == 0


@needs_root
def test_a_restart_while_a_part_cannot_be_read(place: Place, tmp_path: Path) -> None:
    behind, target, home = place
    fill(behind)
    with faulty(behind, tmp_path / "mount") as fs:
        with watching(fs.point, target, home) as watch:
            assert watch.stop() == 0
        before = read_tree(target)
        fs.fail({"d3/deep": errno.EIO})
        with watching(fs.point, target, home) as watch:
            assert problems(watch) == {("d3/deep", errno.EIO)}
            assert read_tree(target) == before
            fs.fail({})
            eventually(lambda: not watch.status()["problems"], "no recovery", 40)


@needs_root
@pytest.mark.timeout(120)
def test_a_source_whose_events_lie_is_emptied(place: Place, tmp_path: Path) -> None:
    """Each absence gets its second look, and then it halts as elsewhere; a person can let the removals through."""
    behind, target, home = place
    fill(behind)
    with faulty(behind, tmp_path / "mount") as fs, watching(fs.point, target, home) as watch:
        before = read_tree(target)
        aside = behind.with_name("aside")
        aside.mkdir()
        for path in behind.iterdir():
            path.rename(aside / path.name)
        assert_halts(watch, "empty")
        count = watch.status()["cycles"]
        assert watch.flush() == 5
        assert watch.status()["cycles"] <= count + 3, "it looks again and again"
        assert read_tree(target) == before
        for path in aside.iterdir():
            path.rename(behind / path.name)
        assert_recovers(watch)
        for path in behind.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        assert_halts(watch, "empty")
        assert run("approve", watch.status()["halt"]["id"], str(target), env=watch.env).returncode == 0
        eventually(lambda: not read_tree(target), "an approval lets nothing through")


@needs_root
@pytest.mark.timeout(120)
def test_a_source_that_goes_away_while_an_absence_is_doubted(place: Place, tmp_path: Path) -> None:
    behind, target, home = place
    fill(behind)
    with faulty(behind, tmp_path / "mount") as fs, watching(fs.point, target, home) as watch:
        (behind / "a.txt").unlink()
        fs.fail({"": errno.EIO})
        eventually(lambda: watch.status()["halt"], "no halt")
        count = watch.status()["cycles"]
        eventually(lambda: watch.status()["cycles"] > count, "it is not tried again")
        assert watch.status()["cycles"] < count + 10, "it is tried without a pause"
        assert (target / "a.txt").exists()
        fs.fail({})
        eventually(lambda: not (target / "a.txt").exists(), "the removal is forgotten", 60)


@needs_root
def test_one_run_takes_the_second_look_itself(place: Place, tmp_path: Path) -> None:
    behind, target, home = place
    with faulty(behind, tmp_path / "mount") as fs:
        pair, env = (str(fs.point), str(target)), environment(home)
        assert run("sync", *pair, env=env).returncode == 0
        (behind / "a.txt").unlink()
        done = run("sync", *pair, "--json", env=env)
        assert (done.returncode, json.loads(done.stdout)["removed"]) == (0, 1), done.stderr
        assert_equal(behind, target)


def test_a_name_that_a_rule_hides_in_the_target_stops_nothing_else(place: Place) -> None:
    """A file of the source, for whose name the target has a directory that the rules leave out."""
    source, target, home = place
    (target / "build").mkdir(parents=True)
    with watching(source, target, home, "--ignore", "build/") as watch:
        (source / "build").write_text("a file")
        eventually(lambda: problems(watch) == {("build", errno.EEXIST)}, "no problem")
        (source / "a.txt").write_text("the rest goes on")
        eventually(lambda: (target / "a.txt").read_text() == "the rest goes on", "the rest stands still")
        assert watch.flush() == 3
        (target / "build").rmdir()
        eventually((target / "build").is_file, "no recovery", 60)
        assert_recovers(watch)


@pytest.mark.parametrize("ask", ["flush", "status"])
def test_a_target_that_is_gone_is_noticed_when_somebody_asks(place: Place, ask: str) -> None:
    source, target, home = place
    with watching(source, target, home) as watch:
        target.rename(target.with_name("away"))
        target.mkdir()
        if ask == "flush":
            assert watch.flush() == 5
        else:
            assert "target is another directory" in str(watch.status()["halt"])
        assert list(target.iterdir()) == []
        target.rmdir()
        target.with_name("away").rename(target)
        assert_recovers(watch)


def _end_open(path: Path) -> None:
    path.chmod(0o755)


def _end_removed(path: Path) -> None:
    path.chmod(0o755)
    shutil.rmtree(path)


def _end_moved(path: Path) -> None:
    path.chmod(0o755)
    path.rename(path.with_name("elsewhere"))


def _end_file(path: Path) -> None:
    _end_removed(path)
    path.write_text("a file by now")


@pytest.mark.skipif(os.geteuid() == 0 and shutil.which("setpriv") is None, reason="needs setpriv to drop root")
@pytest.mark.parametrize("mode", [0o000, 0o400])
@pytest.mark.parametrize("end", [_end_open, _end_removed, _end_moved, _end_file])
@pytest.mark.parametrize("running", [True, False])
def test_a_directory_that_was_shut_for_a_while(
    place: Place, end: Callable[[Path], None], mode: int, running: bool
) -> None:
    """Its mirror is shut, too, by syncd itself, which must not be kept out by that."""
    source, target, home = place
    fill(source)
    shut = Path("d3", "deep")
    with watching(source, target, home, prefix=without_rights()) as watch:
        (source / shut).chmod(mode)
        eventually(lambda: (target / shut).stat().st_mode & 0o777 == mode, "its mode is not mirrored")
        if not running:
            watch.stop()
        end(source / shut)
        if running:
            assert_recovers(watch)
            assert watch.flush() == 0
    if not running:
        done = run("sync", str(source), str(target), env=environment(home), prefix=without_rights())
        assert done.returncode == 0, done.stderr
    assert_equal(source, target)


@pytest.mark.skipif(os.geteuid() == 0 and shutil.which("setpriv") is None, reason="needs setpriv to drop root")
def test_a_directory_that_this_user_may_not_read(place: Place) -> None:
    source, target, home = place
    fill(source)
    with watching(source, target, home, prefix=without_rights()) as watch:
        before = read_tree(target)
        (source / "d3" / "deep").chmod(0)
        (source / "d3" / "deep" / "f3").write_text("written by somebody who may")
        eventually(lambda: {number for _, number in problems(watch)} == {errno.EACCES}, "no problem")
        assert watch.flush() == 3
        now = read_tree(target)
        assert before.keys() == now.keys()
        (source / "d3" / "deep").chmod(0o755)
        assert_recovers(watch)
        (source / "d3" / "deep" / "f3").write_text("watched again")
        eventually(lambda: (target / "d3" / "deep" / "f3").read_text() == "watched again", "not watched")
