"""A watch in the test's own process, whose times can be chosen."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

from syncd.control.opening import open_pair, resolve
from syncd.control.runner import Runner
from syncd.control.status import Status
from syncd.engine.watch import Watch
from syncd.kernel.choose import load
from syncd.model.report import CycleReport
from syncd.model.settings import Settings, Timing
from syncd.watchers.choose import choose


class Engine:
    """One engine thread. `on_report` is called in it, with each report, after it was kept in `reports`."""

    def __init__(
        self, source: Path, target: Path, timing: Timing, on_report: Callable[[CycleReport], object] | None = None
    ) -> None:
        settings = resolve(bytes(source), bytes(target), Settings(b"", b"", timing=timing))
        self.opened = open_pair(settings, load(), lambda text: None)
        watcher, reason = choose("auto", settings.source, load())
        self.reports: list[CycleReport] = []
        self._on_report = on_report or (lambda done: None)
        status = Status(settings.source, settings.target, "", watcher.name, reason)
        self.runner = Runner(self.opened.pair, Watch(watcher, settings.source), status, self._keep)
        self.thread = threading.Thread(target=self.runner.run)
        self.thread.start()
        assert self.runner.started.wait(30)

    def _keep(self, done: CycleReport) -> None:
        self.reports.append(done)
        self._on_report(done)

    def close(self) -> None:
        self.runner.stop()
        self.thread.join(30)
        self.opened.close()
        assert self.runner.error is None
