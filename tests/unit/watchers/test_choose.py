"""Which watcher is chosen, and what is said about it."""

import contextlib
import errno
import os
import sys

import pytest

from syncd.errors import UsageError
from syncd.system.mounts import Mount
from syncd.watchers import choose as module
from syncd.watchers.choose import choose


class StandIn:
    """A kernel of which only the name is asked, and a watcher of which nothing is."""

    def __init__(self, name="pure"):
        self.name = name


@pytest.fixture
def made(monkeypatch):
    """What `choose` makes, without making it."""
    made = []

    def make(name, source, kernel, fstype, whole=False):
        made.append((name, fstype))
        return StandIn(name)

    monkeypatch.setattr(module, "_make", make)
    return made


@pytest.mark.parametrize(
    ("name", "fstype", "kernel", "platform", "chosen", "reason"),
    [
        ("auto", "ext4", "native", "linux", "inotify", "ext4"),
        ("auto", "overlay", "native", "linux", "inotify", "overlay"),
        ("auto", "ext4", "pure", "linux", "pyinotify", "the native kernel is not in use"),
        ("auto", "apfs", "pure", "darwin", "watchdog", "darwin"),
        ("auto", "fuse.sshfs", "native", "linux", "poll", "fuse.sshfs: changes made on the other side"),
        ("auto", "9p", "pure", "linux", "poll", "9p: "),
        ("auto", "fuse", "native", "linux", "poll", "below the FUSE mount"),
        ("auto", "osxfs", "pure", "darwin", "poll", "only part of the changes"),
        ("poll", "ext4", "native", "linux", "poll", "asked for"),
        ("pyinotify", "ext4", "native", "linux", "pyinotify", "asked for"),
        ("watchdog-poll", "ext4", "native", "linux", "watchdog-poll", "asked for"),
        ("inotify", "nfs4", "native", "linux", "inotify", "asked for; but nfs4: "),
        ("poll", "nfs4", "native", "linux", "poll", "asked for"),
    ],
)
def test_the_choice(made, monkeypatch, name, fstype, kernel, platform, chosen, reason):
    monkeypatch.setattr(module, "mount_of", lambda _: Mount(1, 0, 0, b"/", b"/", fstype, b"dev", "rw"))
    monkeypatch.setattr(sys, "platform", platform)
    watcher, why = choose(name, b"/source", StandIn(kernel))
    assert watcher.name == chosen
    assert made == [(chosen, fstype)]
    assert reason in why


def test_without_a_mount_table(made, monkeypatch):
    monkeypatch.setattr(module, "mount_of", lambda _: None)
    monkeypatch.setattr(sys, "platform", "darwin")
    assert choose("auto", b"/source", StandIn())[0].name == "watchdog"


def test_an_unknown_name():
    with pytest.raises(UsageError, match="'inotifi'; there are: auto, inotify"):
        choose("inotifi", b"/", StandIn())


@pytest.mark.parametrize(
    ("number", "reason"), [(errno.EMFILE, "sudo sysctl fs.inotify.max_user_instances="), (errno.ENOMEM, "inotify: ")]
)
def test_a_queue_that_is_refused(monkeypatch, number, reason):
    def make(name, *_, **_more):
        if name != "poll":
            raise OSError(number, os.strerror(number))
        return StandIn(name)

    monkeypatch.setattr(module, "_make", make)
    watcher, why = choose("auto", b"/", StandIn())
    assert watcher.name == "poll"
    assert reason in why


@pytest.mark.parametrize(
    ("name", "absent", "words"),
    [
        ("pyinotify", "pyinotify", "needs the package pyinotify"),
        ("watchdog", "watchdog.events", "needs the package watchdog"),
        ("inotify", "syncd._native", "needs the native kernel"),
    ],
)
def test_what_is_not_installed(monkeypatch, tmp_path, name, absent, words):
    for loaded in list(sys.modules):
        if loaded.startswith("syncd.watchers.") and loaded.rpartition(".")[2] in ("watchdog", "native"):
            monkeypatch.delitem(sys.modules, loaded)
    monkeypatch.setitem(sys.modules, absent, None)
    with pytest.raises(UsageError, match=words):
        choose(name, os.fsencode(tmp_path), StandIn())


def test_each_is_made_and_closed(tmp_path, kernel):
    for name in ("pyinotify", "watchdog", "watchdog-poll", "poll"):
        watcher, _ = choose(name, os.fsencode(tmp_path), kernel)
        with contextlib.closing(watcher):
            assert watcher.name == name
            assert watcher.fd >= 0
