"""The watcher of a single cycle: it says nothing."""

from __future__ import annotations

import select
from collections.abc import Collection

from syncd.kernel.contract import Root, Rules
from syncd.model.change import Hints
from syncd.watchers.base import Coverage


class NoWatcher:
    """Watches nothing, for `sync`."""

    name = "none"
    message: str | None = None
    mirror = scan = None
    bound = 0.0
    fd = -1

    def cover(self, root: Root, rules: Rules) -> Coverage:
        """Nothing to cover."""
        return Coverage(0)

    def watch_locks(self, root: Root, directory: bytes, names: Collection[bytes]) -> None:
        """Nothing to watch."""

    def listen(self, epoll: select.epoll) -> None:
        """Nothing to report."""

    def attend(self, on: bool) -> None:
        """Nothing to lose."""

    def read(self) -> Hints:
        """Nothing to say."""
        return Hints()

    def drain(self) -> Hints:
        """Nothing to say."""
        return Hints()

    def cancel(self) -> None:
        """See the protocol."""

    def close(self) -> None:
        """Nothing to let go of."""
