"""What the tests of watchers share: every watcher by name, and waiting for what it says."""

from __future__ import annotations

import os
import re
import select
import time
from collections.abc import Callable
from pathlib import Path

from syncd.kernel.choose import load
from syncd.kernel.contract import Kernel, Rules, RuleSource, Tree
from syncd.model.change import Hints
from syncd.model.path import any_above
from syncd.watchers.base import Coverage, Watcher
from syncd.watchers.words import Words

EVENTS = ("inotify", "pyinotify")  # exact and at once
SLACK = 8.0  # seconds that a loaded machine may add to a watcher's bound
SWEEP = 0.05  # seconds between two sweeps
PATTERNS = b"ignored\n*.log\n"


def make(name: str, path: bytes, kernel: Kernel, monkeypatch) -> Watcher:
    """The watcher of that name; those that sweep do it more often than they would."""
    name = name.partition(", ")[0]
    if name == "inotify":
        from syncd.watchers.native import NativeWatcher

        return NativeWatcher(path)
    if name == "pyinotify":
        from syncd.watchers.pyinotify import PyinotifyWatcher

        return PyinotifyWatcher(path)
    if name == "poll":
        from syncd.watchers.poll import PollWatcher

        return PollWatcher(path, kernel, least=SWEEP)
    from syncd.watchers import watchdog

    monkeypatch.setattr(watchdog, "INTERVAL", SWEEP)
    return watchdog.WatchdogWatcher(path, polling=name == "watchdog-poll")


def kernel_for(name: str) -> Kernel:
    """A kernel whose rules the watcher of that name understands; "poll, native" sweeps with the native one."""
    return load("native" if name.startswith("inotify") or name.endswith(", native") else "pure")


def scans(name: str) -> bool:
    """Whether the watcher of that name covers in one walk with the scan."""
    return name.endswith(", scanning")


def covers(hints: Hints, path: bytes) -> bool:
    """Whether a path is covered by what a watcher said."""
    return hints.rescan or path in hints.ready | hints.waiting or any_above(path, hints.deep)


class Ear:
    """A watcher that covers a source, and everything it has said since. `scans`: it does so in one walk with the scan."""

    def __init__(self, watcher: Watcher, kernel: Kernel, source: Path, *, scans: bool = False) -> None:
        self.watcher = watcher
        self.scans = scans
        self.kernel = kernel
        self.source = os.fsencode(source)
        self.rules = self.compile()
        self.hints = Hints()
        self.tree: Tree | None = None  # the last scan's

    def compile(self, patterns: bytes = PATTERNS) -> Rules:
        return self.kernel.compile_rules((), (b".gitignore",), (RuleSource("test", patterns),), ())

    def cover(self, rules: Rules | None = None) -> Coverage:
        self.rules = rules or self.rules
        root = self.kernel.open_root(self.source)
        try:
            if not self.scans:
                return self.watcher.cover(root, self.rules)
            base, control = self.kernel.empty_base(), self.kernel.control()
            covered, self.tree = self.watcher.scan(root, self.rules, base, control, False)
            return covered
        finally:
            root.close()

    def watch_locks(self, directory: bytes, *names: bytes) -> None:
        root = self.kernel.open_root(self.source)
        try:
            self.watcher.watch_locks(root, directory, names)
        finally:
            root.close()

    def forget(self) -> None:
        """Start anew; after a rescan everything is covered anew first, as the engine does."""
        if self.hints.rescan:
            self.cover()
        self.hints = Hints()

    def take(self, hints: Hints) -> None:
        words = Words()
        words.add(self.hints)
        words.add(hints)
        self.hints = words.hints()

    def until(self, true: Callable[[Hints], bool]) -> Hints:
        """Read until all that was said satisfies a condition. Fails past the watcher's bound."""
        poll = select.poll()
        poll.register(self.watcher.fd, select.POLLIN)
        deadline = time.monotonic() + self.watcher.bound + SLACK
        while not true(self.hints):
            left = deadline - time.monotonic()
            assert left > 0, f"not told within the bound; so far: {self.hints}"
            if poll.poll(left * 1000):
                self.take(self.watcher.read())
        return self.hints

    def expect(self, *paths: bytes) -> Hints:
        """Read until each path is covered."""
        return self.until(lambda hints: all(covers(hints, path) for path in paths))

    def settle(self) -> Hints:
        """Read until a change made now has been told: so has everything before it."""
        name = b"marker-%d" % time.monotonic_ns()
        path = os.path.join(self.source, name)
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT))
        self.expect(name)
        return self.hints


def watched_below(source: Path) -> int:
    """How many directories at or below one have inotify watches of this process."""
    inodes = {os.stat(directory).st_ino for directory, _, _ in os.walk(source)}
    found = set()
    for name in os.listdir("/proc/self/fdinfo"):
        try:
            text = Path("/proc/self/fdinfo", name).read_text()
        except FileNotFoundError:
            continue
        found |= {int(inode, 16) for inode in re.findall(r"^inotify wd:\S+ ino:([0-9a-f]+) ", text, re.MULTILINE)}
    return len(inodes & found)


def below(source: bytes) -> list[str]:
    """The open descriptors of this process at or below a directory."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        try:
            link = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:
            continue
        if os.fsencode(link) == source or os.fsencode(link).startswith(source + b"/"):
            found.append(link)
    return found
