"""Which watcher serves a source, and why."""

from __future__ import annotations

import errno
import sys

from syncd.errors import UsageError
from syncd.kernel.contract import Kernel
from syncd.system.limits import shortage
from syncd.system.mounts import events_lie, mount_of
from syncd.watchers.base import Watcher

NAMES = ("auto", "inotify", "pyinotify", "watchdog", "watchdog-poll", "poll")


def choose(name: str, source: bytes, kernel: Kernel) -> tuple[Watcher, str]:
    """The watcher of that name (see NAMES) for a source, and the reason for it in words.

    Raises UsageError for an unknown or impossible name. Where the kernel gives no inotify queue,
    `auto` polls and says which limit is too low.
    """
    if name not in NAMES:
        raise UsageError(f"no watcher is called {name!r}; there are: {', '.join(NAMES)}")
    mount = mount_of(source)
    fstype = mount.fstype if mount is not None else ""
    lie = events_lie(fstype)
    if name != "auto":
        return _make(name, source, kernel, fstype), f"asked for; but {lie}" if lie and name != "poll" else "asked for"
    if lie:
        return _make("poll", source, kernel, fstype), lie
    if sys.platform != "linux":
        return _make("watchdog", source, kernel, fstype), f"the system is {sys.platform}"
    native = kernel.name == "native"
    try:
        watcher = _make("inotify" if native else "pyinotify", source, kernel, fstype, whole=True)
    except OSError as error:
        reason = shortage(0, error.errno or 0) if error.errno in (errno.EMFILE, errno.ENFILE) else None
        return _make("poll", source, kernel, fstype), reason or f"inotify: {error.strerror}"
    return watcher, fstype if native else f"{fstype}; the native kernel is not in use"


def _make(name: str, source: bytes, kernel: Kernel, fstype: str, *, whole: bool = False) -> Watcher:
    """Modules are imported only when chosen: each brings a package along."""
    if name == "poll":
        from syncd.watchers.poll import PollWatcher

        return PollWatcher(source, kernel, fstype)
    if name in ("watchdog", "watchdog-poll"):
        return _watchdog(source, polling=name == "watchdog-poll")
    from syncd.watchers.joined import Joined

    inner = _pyinotify(source) if name == "pyinotify" else _native(source)
    return Joined(inner, source, kernel, whole=whole)


def _native(source: bytes) -> Watcher:
    try:
        from syncd.watchers.native import NativeWatcher
    except ImportError as error:
        raise UsageError("the watcher inotify needs the native kernel; pyinotify does without") from error
    return NativeWatcher(source)


def _pyinotify(source: bytes) -> Watcher:
    from syncd.watchers.pyinotify import PyinotifyWatcher

    return PyinotifyWatcher(source)


def _watchdog(source: bytes, *, polling: bool) -> Watcher:
    try:
        from syncd.watchers.watchdog import WatchdogWatcher
    except ImportError as error:
        raise UsageError(f"the watcher watchdog needs the package watchdog: {error}") from error
    return WatchdogWatcher(source, polling)
