"""The watcher of other systems, on the package watchdog; and its polling."""

from __future__ import annotations

import contextlib
import logging
import os
import select
import sys
import threading
import time
import warnings
from collections.abc import Callable, Collection, Sequence
from enum import Enum
from typing import TypeAlias
from weakref import WeakSet

from watchdog.events import (
    EVENT_TYPE_CLOSED_NO_WRITE,
    EVENT_TYPE_OPENED,
    FileSystemEvent,
    FileSystemEventHandler,
)
from watchdog.observers import Observer
from watchdog.observers.api import BaseObserver, EventDispatcher
from watchdog.observers.polling import PollingObserverVFS

from syncd.kernel.contract import Root, Rules
from syncd.model.change import Hints
from syncd.model.path import name as name_of
from syncd.model.path import parent
from syncd.watchers.base import Coverage
from syncd.watchers.walk import walk
from syncd.watchers.words import Inbox, Words

# It says so when it meets a new directory twice, which is how it makes sure.
warnings.filterwarnings("ignore", "Callback with id", RuntimeWarning)

LOGGER = logging.getLogger("watchdog.observers")
DELAY = 1.0  # the package keeps back the first half of a move for half a second
INTERVAL = 1.0

_INOTIFY = sys.platform == "linux"


class _Loss(Enum):
    """Stands in the inbox among events."""

    TRACK = "the package lost events"
    THREAD = "one of its threads ended by an error"


Item: TypeAlias = FileSystemEvent | _Loss


class WatchdogWatcher:
    """See the protocol. What of it cannot be had from the package:

    It watches excluded directories too; their words are left out. `drain` cannot know that everything has
    arrived, so it always asks for a rescan. On Linux an umount of the source gives no word, and where the
    limit of watches is met or a thread of the package fails, its polling takes over.
    """

    message: str | None = None
    mirror = scan = None

    def __init__(self, path: bytes, polling: bool = False) -> None:
        self.name = "watchdog-poll" if polling else "watchdog"
        self.bound = INTERVAL if polling else DELAY
        self._path = path
        self._polling = polling
        self._inbox: Inbox[Item] = Inbox()
        self.fd = self._inbox.fd
        self._observer: BaseObserver | None = None
        self._real = b""
        self._rules: Rules | None = None
        self._locks: dict[bytes, frozenset[bytes]] = {}
        self._handler = _Handler(self._inbox.put)
        self._log = _Overflows(self._inbox.put)
        LOGGER.addHandler(self._log)
        _watchers.add(self)

    def cover(self, root: Root, rules: Rules) -> Coverage:
        """See the protocol. The watch is recursive."""
        self._rules = rules
        self._restart()
        visited: list[bytes] = []
        refused: dict[bytes, int] = {}
        self._teach(root.fd, b"", visited, refused)
        return Coverage(len(visited), tuple(refused), next(iter(refused.values()), 0))

    def watch_locks(self, root: Root, directory: bytes, names: Collection[bytes]) -> None:  # noqa: ARG002
        """See the protocol. Their directories are watched anyway."""
        self._locks[directory] = frozenset(names)

    def listen(self, epoll: select.epoll) -> None:
        """See the protocol."""
        epoll.register(self.fd, select.EPOLLIN)

    def attend(self, on: bool) -> None:
        """See the protocol. Its thread goes on anyway."""

    def read(self) -> Hints:
        """See the protocol."""
        events, lost = self._inbox.take()
        words = Words()
        words.rescan = lost
        made: list[bytes] = []
        for event in events:
            if isinstance(event, _Loss):
                words.rescan = True
                if event is _Loss.THREAD and not self._polling:
                    self._poll_from_now()
            else:
                self._hear(words, made, event)
        if made and not words.rescan:
            self._teach_new(words, made)
        if made and not self._polling and not self._has_room():
            self._poll_from_now()
            words.rescan = True  # the cover that follows sets it up
        return words.hints()

    def drain(self) -> Hints:
        """See the protocol."""
        words = Words()
        words.add(self.read())
        words.rescan = True
        return words.hints()

    def cancel(self) -> None:
        """See the protocol."""

    def close(self) -> None:
        """See the protocol."""
        _watchers.discard(self)
        LOGGER.removeHandler(self._log)
        self._stop()
        self._inbox.close()

    # The package ---------------------------------------------------------------------------------

    def _restart(self) -> None:
        """A root that went away ends the package's watch; a new one stands for whatever is there now."""
        self._stop()
        self._real = os.path.realpath(self._path)
        if not self._polling:
            self._start(Observer())
            if not self._has_room():
                self._stop()
                self._poll_from_now()
        if self._polling:
            begun = time.monotonic()
            self._start(PollingObserverVFS(os.lstat, os.scandir, polling_interval=INTERVAL))  # it would follow links
            self.bound = INTERVAL + 2 * (time.monotonic() - begun)

    def _start(self, observer: BaseObserver) -> None:
        observer.schedule(self._handler, os.fsdecode(self._real), recursive=True)
        with contextlib.suppress(OSError):  # the root is gone, or no watch is left: both show elsewhere
            observer.start()
        self._observer = observer

    def _stop(self) -> None:
        observer, self._observer = self._observer, None
        if observer is None:
            return
        try:
            observer.stop()
        except KeyError:  # its notes are wrong after two directories were exchanged; one thread stays blocked
            observer.event_queue.put_nowait(EventDispatcher.stop_event)
        if observer.is_alive():
            observer.join()

    def _has_room(self) -> bool:
        """Whether another watch is to be had. The package passes over directories that get none."""
        if self._observer is None or not self._observer.is_alive() or not _INOTIFY:
            return self._observer is not None
        try:
            self._observer.unschedule(self._observer.schedule(FileSystemEventHandler(), "/proc", recursive=False))
        except OSError:
            return False
        return True

    def thread_failed(self) -> None:
        """A thread of the package ended: what it should have told is lost. Any thread."""
        self._inbox.put(_Loss.THREAD)

    def _poll_from_now(self) -> None:
        """The next `cover` starts the package's polling in the place of its events."""
        self._polling = True
        self.name = "watchdog-poll"

    # Words ---------------------------------------------------------------------------------------

    def _hear(self, words: Words, made: list[bytes], event: FileSystemEvent) -> None:
        if event.event_type in (EVENT_TYPE_OPENED, EVENT_TYPE_CLOSED_NO_WRITE):
            return
        is_dir = event.is_directory
        old, new = self._relative(event.src_path), self._relative(event.dest_path)
        for path in (old, new):
            if path is not None and name_of(path) in self._locks.get(parent(path), ()):
                words.locks = True
        if old == b"" and event.event_type in ("deleted", "moved"):
            words.rescan = True
        old, new = self._unless_excluded(old, is_dir), self._unless_excluded(new, is_dir)
        if event.event_type == "moved":
            if old is not None:
                words.say(old, deep=is_dir, removed=True)
            if new is not None:
                words.say(new, ready=True, deep=is_dir)
            if old is not None and new is not None:
                words.moved(old, new)
            # The package loses directories that are renamed while it is still setting watches in them, and
            # takes two that were exchanged for one: its watches are set anew.
            words.rescan = words.rescan or (is_dir and _INOTIFY and not self._polling)
        elif old is not None and not (is_dir and event.event_type == "modified"):  # that tells of names: they are told
            anew = is_dir and event.event_type in ("created", "deleted")
            words.say(old, ready=event.event_type == "closed", deep=anew, removed=event.event_type == "deleted")
        if is_dir:
            made += [path for path in (old if event.event_type == "created" else None, new) if path is not None]

    def _relative(self, path: bytes | str) -> bytes | None:
        full = os.fsencode(path)
        if full == self._real:
            return b""
        top = self._real.rstrip(b"/") + b"/"
        return full[len(top) :] if full.startswith(top) else None

    def _unless_excluded(self, path: bytes | None, is_dir: bool) -> bytes | None:
        if path is None or self._rules is None:
            return None
        # A rule file that is ignored itself is none of the source's, but what it says has changed.
        excluded = path and self._rules.excluded(path, is_dir) and (is_dir or not self._rules.teaches(path))
        return None if excluded else path

    def _teach_new(self, words: Words, made: Sequence[bytes]) -> None:
        """Let the rules learn the rule files of directories that appeared."""
        try:
            top = os.open(self._path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:
            words.rescan = True
            return
        try:
            for path in made:
                self._teach(top, path, [], {})
        finally:
            os.close(top)

    def _teach(self, top: int, path: bytes, visited: list[bytes], refused: dict[bytes, int]) -> None:
        def refuse(place: bytes, error: OSError) -> None:
            refused[place] = error.errno or -1

        if self._rules is not None:
            walk(top, path, self._rules, lambda place, _fd: visited.append(place), refuse, lambda: False)


class _Handler(FileSystemEventHandler):
    """Hands events over; called in the package's thread."""

    def __init__(self, put: Callable[[Item], None]) -> None:
        self._put = put

    def on_any_event(self, event: FileSystemEvent) -> None:
        self._put(event)


class _Overflows(logging.Handler):
    """The package tells of lost events only in its log."""

    def __init__(self, put: Callable[[Item], None]) -> None:
        super().__init__(logging.WARNING)
        self._put = put

    def emit(self, _record: logging.LogRecord) -> None:
        self._put(_Loss.TRACK)


_watchers: WeakSet[WatchdogWatcher] = WeakSet()
_before = threading.excepthook


def _note_failure(failure: threading.ExceptHookArgs, /) -> None:
    if type(failure.thread).__module__.startswith("watchdog."):
        for watcher in list(_watchers):
            watcher.thread_failed()
    _before(failure)


threading.excepthook = _note_failure
