"""When paths were last named by a watcher or written by a cycle: for `syncd explain`."""

from __future__ import annotations

import time
from collections import deque

REMEMBERED = 256  # words of the watcher, and writes, of which `explain` can tell the time
FEW = 64  # paths named at once that are worth remembering


class Remembered:
    """When paths were named last; a burst is not worth remembering, and old ones go. Any thread may ask."""

    def __init__(self) -> None:
        self._named: deque[tuple[float, frozenset[bytes]]] = deque(maxlen=REMEMBERED)

    def note(self, paths: frozenset[bytes], now: float) -> None:
        """They are named at the monotonic time `now`."""
        if len(paths) <= FEW:
            self._named.append((now, paths))

    def last(self, path: bytes) -> float | None:
        """When `path` was named last, in seconds since 1970; None if that is not remembered."""
        when = next((when for when, paths in reversed(tuple(self._named)) if path in paths), None)
        return None if when is None else time.time() - (time.monotonic() - when)
