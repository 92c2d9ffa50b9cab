import errno
import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from syncd.errors import TargetBusy
from syncd.system import flocks, locks
from syncd.system.locks import TargetLock, live_targets

HOLD = """
import sys, os
from syncd.system.locks import TargetLock
lock = TargetLock(os.fsencode(sys.argv[1]), os.fsencode(sys.argv[2])).acquire()
print("held", flush=True)
sys.stdin.read(1)
"""


@pytest.fixture
def pair(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setattr(locks, "_PAUSE", 0.0)
    (tmp_path / "t\udcff").mkdir()
    return os.fsencode(tmp_path / "s\udcff"), os.fsencode(tmp_path / "t\udcff")


@pytest.fixture
def other(pair):
    """Another process that holds the target."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, *pair], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=os.getcwd()
    )
    assert process.stdout.readline() == b"held\n"
    yield process
    process.kill()
    process.wait()
    process.stdin.close()
    process.stdout.close()


def test_one_target_one_writer(pair):
    with TargetLock(*pair) as lock:
        assert lock.warning is None
        assert [(h.pid, h.source, h.target) for h in live_targets()] == [(os.getpid(), *pair)]
        with pytest.raises(TargetBusy, match=f"process {os.getpid()}"):
            TargetLock(b"/elsewhere", pair[1] + b"/.").acquire()
    lock.release()
    assert live_targets() == []
    with TargetLock(*pair):
        pass


def test_another_process_is_named(pair, other):
    assert [h.pid for h in live_targets()] == [other.pid]
    with pytest.raises(TargetBusy, match=rf"process {other.pid} \(from .*s\\xff\)"):
        TargetLock(*pair).acquire()


def test_a_dead_process_holds_nothing(pair, other):
    other.kill()
    other.wait()
    assert live_targets() == []
    with TargetLock(*pair):
        assert [h.pid for h in live_targets()] == [os.getpid()]


def test_a_lock_on_the_root_is_only_a_warning(pair):
    fd = os.open(pair[1], os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_EX)
    with TargetLock(*pair) as lock:
        assert f"process {os.getpid()} holds a lock" in lock.warning
    os.close(fd)
    with TargetLock(*pair) as lock:
        assert lock.warning is None


def test_a_locker_out_of_sight(pair, monkeypatch, tmp_path):
    monkeypatch.setattr(flocks, "LOCKS", tmp_path / "absent")
    fd = os.open(pair[1], os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_EX)
    with TargetLock(*pair) as lock:
        assert "cannot be seen" in lock.warning
    os.close(fd)


def test_an_absent_target(pair):
    with pytest.raises(FileNotFoundError):
        TargetLock(pair[0], pair[1] + b"/absent").acquire()


def test_no_descriptor_is_left(pair):
    before = os.listdir("/proc/self/fd")
    with TargetLock(*pair), pytest.raises(TargetBusy):
        TargetLock(*pair).acquire()
    assert os.listdir("/proc/self/fd") == before


def test_a_release_between_open_and_lock_is_noticed(pair, monkeypatch):
    """The file that was opened is unlinked by its last holder before the lock on it is had."""
    taken = []

    def take(fd, shared=False):
        if not taken:
            os.unlink(os.readlink(f"/proc/self/fd/{fd}"))
        taken.append(fd)
        return real(fd, shared)

    real = flocks.take
    monkeypatch.setattr(flocks, "take", take)
    with TargetLock(*pair):
        assert len(live_targets()) == 1


def test_overlays_are_told(pair):
    with TargetLock(*pair, (b"out", b"\xff")):
        assert live_targets()[0].overlays == (b"out", b"\xff")


def test_a_directory_on_nfs_is_as_good_as_one_without_locks(pair, monkeypatch):
    def flock(_fd, _how):
        raise OSError(errno.EBADF, "not open for writing")

    monkeypatch.setattr(fcntl, "flock", flock)
    with TargetLock(*pair) as lock:
        assert lock.warning is None


def test_who_only_asks_does_not_keep_anybody_out(pair, monkeypatch):
    path = Path(os.fsdecode(pair[1]))
    fd, asking = (os.open(path, os.O_RDONLY) for _ in range(2))
    try:
        assert not flocks.is_taken(path)
        assert flocks.take(asking, shared=True)
        pauses = []

        def sleep(seconds):
            pauses.append(seconds)
            fcntl.flock(asking, fcntl.LOCK_UN)

        monkeypatch.setattr(flocks.time, "sleep", sleep)
        assert flocks.take_soon(fd)
        assert len(pauses) == 1
        assert flocks.is_taken(path)
        assert not flocks.is_taken(path / "absent")
    finally:
        os.close(fd)
        os.close(asking)
