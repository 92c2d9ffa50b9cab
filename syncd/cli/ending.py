"""Signals that end a run: the first one in order, the second one at once."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from types import FrameType

from syncd.control.runner import ENDING


class Ending:
    """Called with each of them. `number` is the first one that came, 0 before; `stop` is called for it."""

    def __init__(self, stop: Callable[[], object]) -> None:
        self.number = 0
        self._stop = stop

    def __call__(self, number: int, _frame: FrameType | None = None) -> None:
        if self.number:
            os._exit(128 + number)  # the journal has all that was done
        self.number = number
        self._stop()

    @staticmethod
    def leave_to_main() -> None:
        """Have none of them come to the calling thread, and to those it starts: the main one would go on waiting."""
        signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)

    def listen(self) -> None:
        """Be called from now on. Only the main thread may say so."""
        for number in ENDING:
            if number == signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN:
                continue  # nohup
            signal.signal(number, self)
