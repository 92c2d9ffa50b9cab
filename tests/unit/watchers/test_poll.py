"""How the sweeping watcher paces itself, and what becomes of its failures."""

import contextlib
import os
import select
import threading
import time

import pytest

from syncd.watchers import poll as module
from syncd.watchers.poll import PollWatcher
from tests.watching import Ear


def covered(kernel, source, **options):
    ear = Ear(PollWatcher(os.fsencode(source), kernel, **options), kernel, source)
    ear.cover()
    return ear


@pytest.mark.parametrize(
    ("before", "used", "after", "pause"),
    [
        (0.0, 0.01, 0.01, 1.0),
        (0.0, 0.5, 0.5, 10.0),
        (0.1, 9.0, 0.2, 4.0),  # one moment in which other threads were busy
        (0.5, 0.1, 0.1, 2.0),
    ],
)
def test_a_sweep_takes_a_twentieth_of_a_core(tmp_path, kernel, monkeypatch, before, used, after, pause):
    ear = covered(kernel, tmp_path, least=1.0)
    with contextlib.closing(ear.watcher) as watcher:
        clock = iter([0.0, used])
        watcher._cpu = before
        monkeypatch.setattr(time, "process_time", lambda: next(clock))
        watcher._sweep()
        assert watcher._cpu == after
        assert watcher._pause() == pytest.approx(pause)
        assert watcher.bound >= pause


def test_the_bound_owns_up_to_the_cache_of_a_share(tmp_path, kernel):
    for fstype, least in (("", 1.0), ("nfs4", 1.0), ("fuse.sshfs", 21.0)):
        ear = covered(kernel, tmp_path, fstype=fstype)
        with contextlib.closing(ear.watcher):
            assert least <= ear.watcher.bound < least + 5


def test_a_failed_thread_is_the_readers_error(tmp_path, kernel, monkeypatch):
    ear = covered(kernel, tmp_path, least=60.0)
    with contextlib.closing(ear.watcher) as watcher:
        monkeypatch.setattr(watcher, "_see", lambda: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            watcher.drain()
        assert select.select([watcher.fd], [], [], 5)[0], "the reader is woken"
        with pytest.raises(ZeroDivisionError):
            watcher.read()


def test_close_ends_a_waiting_drain(tmp_path, kernel, monkeypatch):
    ear = covered(kernel, tmp_path, least=60.0)
    begun, released = threading.Event(), threading.Event()

    def see():
        begun.set()
        released.wait(10)
        return module._NOTHING

    monkeypatch.setattr(ear.watcher, "_see", see)
    thread = threading.Thread(target=ear.watcher.drain)
    thread.start()
    assert begun.wait(10)
    ear.watcher.close()
    thread.join(10)
    assert not thread.is_alive()
    released.set()


def test_cancel_ends_the_first_sweep(tmp_path, kernel, monkeypatch):
    """Which is made by whoever covers: nobody is left to close it."""
    watcher = module.PollWatcher(os.fsencode(tmp_path), kernel)
    begun = threading.Event()

    def see():
        begun.set()
        while not watcher._control.cancelled:
            time.sleep(0.001)
        return module._NOTHING

    monkeypatch.setattr(watcher, "_see", see)
    thread = threading.Thread(target=watcher.cover, args=(None, None))
    thread.start()
    assert begun.wait(10)
    watcher.cancel()
    thread.join(10)
    assert not thread.is_alive()
    watcher.close()


def test_cover_sweeps_once(tmp_path, kernel, monkeypatch):
    """A later cover keeps what it compares with: nothing may fall between."""
    ear = covered(kernel, tmp_path, least=60.0)
    with contextlib.closing(ear.watcher):
        (tmp_path / "new").write_bytes(b"")
        ear.cover()
        assert b"new" in ear.watcher.drain().waiting
