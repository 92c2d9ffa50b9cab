"""Single words about paths, gathered into Hints."""

from __future__ import annotations

import os
import threading
from typing import Generic, TypeVar

from syncd.model.change import Hints

MANY = 200_000  # words that nobody read; past them one rescan is cheaper than a list

T = TypeVar("T")


class Words:
    """Gathers the words of one read. The last word on a path decides where it stands."""

    def __init__(self) -> None:
        self._ready: dict[bytes, bool] = {}
        self._deep: set[bytes] = set()
        self._removed: set[bytes] = set()
        self._gone: set[bytes] = set()
        self._moves: list[tuple[bytes, bytes]] = []
        self.locks = False
        self.rescan = False

    def say(
        self, path: bytes, ready: bool = False, deep: bool = False, removed: bool = False, gone: bool = False
    ) -> None:
        """Take in one word. `gone`: a removal, by one whose words come in the order of what happened."""
        self._ready[path] = ready
        (self._gone.add if gone else self._gone.discard)(path)
        if deep:
            self._deep.add(path)
        if removed:
            self._removed.add(path)

    def moved(self, old: bytes, new: bytes) -> None:
        """Remember a pair of names. What is to be said of each is said apart."""
        self._moves.append((old, new))

    def add(self, hints: Hints) -> None:
        """Take in what another one said, later than everything here."""
        self._ready.update(dict.fromkeys(hints.ready, True))
        self._ready.update(dict.fromkeys(hints.waiting, False))
        self._deep |= hints.deep
        self._removed |= hints.removed
        self._gone = (self._gone - hints.ready - hints.waiting) | hints.gone
        self._moves += hints.moves
        self.locks = self.locks or hints.locks
        self.rescan = self.rescan or hints.rescan

    def hints(self) -> Hints:
        """Everything that was said."""
        return Hints(
            ready=frozenset(path for path, ready in self._ready.items() if ready),
            waiting=frozenset(path for path, ready in self._ready.items() if not ready),
            deep=frozenset(self._deep),
            removed=frozenset(self._removed),
            moves=tuple(self._moves),
            locks=self.locks,
            rescan=self.rescan,
            gone=frozenset(self._gone),
        )


class Inbox(Generic[T]):
    """What a thread hands to the reader, with a descriptor that is readable while something lies in it."""

    def __init__(self) -> None:
        self.fd, self._bell = os.pipe()
        os.set_blocking(self.fd, False)
        self._lock = threading.Lock()
        self._items: list[T] = []
        self._full = False
        self._closed = False

    def put(self, item: T) -> None:
        """Hand over one thing. Any thread, never blocks; passed over when closed."""
        with self._lock:
            if self._closed:
                return
            if not self._items and not self._full:
                os.write(self._bell, b"!")
            if len(self._items) < MANY:
                self._items.append(item)
            else:
                self._full = True

    def take(self) -> tuple[list[T], bool]:
        """Everything so far, and whether something was lost because nobody read."""
        with self._lock:
            items, full = self._items, self._full
            self._items, self._full = [], False
            if (items or full) and not self._closed:
                os.read(self.fd, 1)
        return items, full

    def close(self) -> None:
        """Let go of the descriptor. Any thread; twice is harmless."""
        with self._lock:
            if not self._closed:
                self._closed = True
                os.close(self.fd)
                os.close(self._bell)
