"""Run in a user namespace of its own: a tree with more directories than may be watched."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from syncd.kernel.contract import Root, Rules
from syncd.watchers import choose as choosing
from syncd.watchers.base import Coverage
from syncd.watchers.choose import choose
from syncd.watchers.poll import PollWatcher
from tests.watching import Ear, kernel_for, make, scans

LIMIT = Path("/proc/sys/user/max_inotify_watches")
QUEUES = Path("/proc/sys/user/max_inotify_instances")


def main(name: str, place: Path) -> None:
    kernel = kernel_for(name)
    source = place / "source"
    for number in range(30):
        (source / f"d{number}" / "e").mkdir(parents=True)
    LIMIT.write_text("20")
    with pytest.MonkeyPatch.context() as patch:
        if name == "watchdog":
            ear = Ear(make(name, os.fsencode(source), kernel, patch), kernel, source)
            ear.cover()
            assert ear.watcher.name == "watchdog-poll"
        else:
            alone = Ear(make(name, os.fsencode(source), kernel, patch), kernel, source, scans=scans(name))
            covered = alone.cover()
            assert (covered.watched, len(covered.refused), covered.errno) == (20, 41, errno.ENOSPC), covered
            alone.watcher.close()
            patch.setattr("syncd.watchers.poll.LEAST", 0.05)
            patch.setattr(choosing, "events_lie", lambda _: None)
            watcher, _ = choose(name.partition(", ")[0], os.fsencode(source), kernel)
            ear = Ear(watcher, kernel, source, scans=scans(name))
            with pytest.MonkeyPatch.context() as late:
                late.setattr(PollWatcher, "cover", after_a_change(source))
                ear.cover()
            assert ear.tree is None or ear.tree.get(b"d29/late") is not None
            message = watcher.message
            assert "61 directories" in message, message
            assert "sudo sysctl user.max_inotify_watches=" in message, message
            assert "Polling" in message, message
        check_all(ear, source)
        if name != "watchdog":
            check_more(ear, source)
            check_enough(ear, source)
        ear.watcher.close()
        QUEUES.write_text("0")
        if name != "watchdog":
            watcher, reason = choose("auto", os.fsencode(source), kernel)
            assert isinstance(watcher, PollWatcher)
            assert "max_user_instances" in reason or "max_inotify_instances" in reason, reason
            watcher.close()


def after_a_change(source: Path) -> Callable[[PollWatcher, Root, Rules], Coverage]:
    """`PollWatcher.cover`, with a change before its first sweep, which it can not tell of."""
    cover = PollWatcher.cover

    def changed(poll: PollWatcher, root: Root, rules: Rules) -> Coverage:
        (source / "d29/late").write_bytes(b"")
        return cover(poll, root, rules)

    return changed


def check_all(ear: Ear, source: Path) -> None:
    for number in range(30):
        (source / f"d{number}" / "f").write_bytes(b"")
        (source / f"d{number}" / "e" / "f").write_bytes(b"")
    ear.expect(*(b"d%d%s/f" % (number, rest) for number in range(30) for rest in (b"", b"/e")))


def check_more(ear: Ear, source: Path) -> None:
    """A directory that appears when no watch is left."""
    ear.forget()
    (source / "more/e").mkdir(parents=True)
    ear.until(lambda hints: hints.rescan)
    ear.cover()
    ear.settle()
    ear.forget()
    (source / "more/e/f").write_bytes(b"")
    ear.expect(b"more/e/f")
    ear.forget()
    (source / "d7/e/f").unlink()
    assert b"d7/e/f" in ear.watcher.drain().waiting


def check_enough(ear: Ear, source: Path) -> None:
    """Once there are enough, nothing is polled."""
    LIMIT.write_text("200")
    assert ear.cover().refused == ()
    assert ear.watcher.message is None
    assert ear.watcher.bound == 0.0
    (source / "more/e/g").write_bytes(b"")
    assert b"more/e/g" in ear.watcher.drain().ready


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
