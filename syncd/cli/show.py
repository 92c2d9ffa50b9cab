"""What `watch` and `sync` show: a progress bar and one live line on a terminal, plain lines elsewhere, or JSON."""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from syncd.cli.output import size, write_json
from syncd.engine.pair import Pair
from syncd.engine.scan import Sight
from syncd.errors import Refused, SyncdError
from syncd.kernel.contract import Diff
from syncd.model.change import Line
from syncd.model.entry import Kind
from syncd.model.path import display
from syncd.model.report import CycleReport

if TYPE_CHECKING:
    from syncd.control.runner import Runner

BIG_BYTES = 2_000_000_000
BIG_ENTRIES = 100_000
LISTED = 20  # problems named in one report
LARGEST = 5


class Show:
    """The face of a run. `cycle` and `announce` are called by the engine's thread, the rest by the main one."""

    def __init__(self, pair: Pair, *, as_json: bool, verbose: bool, once: bool = False) -> None:
        self._once = once  # a halt ends the run then, and is told as its error
        self.live = sys.stderr.isatty() and not as_json
        self.runner: Runner | None = None
        self._pair = pair
        self._as_json = as_json
        self.verbose = verbose
        self._told: set[str] = set()
        self._total = (0, 0)
        self._scanned = (0, 0)  # entries and bytes before the first copy began
        self._view: Any = None

    def __enter__(self) -> Self:
        if self.live:
            from syncd.cli.live import Live

            self._view = Live()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._view is not None:
            with suppress(OSError):
                self._view.close()
            self._view = None

    def say(self, text: str) -> None:
        """One line for a person, on stderr. A terminal that is gone, or a full disk under a log, stops no mirror."""
        with suppress(OSError):
            if self._view is not None:
                self._view.say(text)
            else:
                sys.stderr.write(f"{time.strftime('%H:%M:%S')} {text}\n")

    def tick(self) -> None:
        """Show how far the first copy is."""
        if self._view is not None and self.runner is not None and not self.runner.started.is_set():
            control, (entries, count) = self._pair.control, self._scanned
            with suppress(OSError):
                self._view.progress(control.entries - entries, control.bytes - count, *self._total)

    def announce(self, sight: Sight, diff: Diff) -> None:
        """Before anything is written: name the paths (verbose), announce a big first copy, refuse what won't fit."""
        if self.verbose:
            for line, sign in ((Line.CHANGED, "put"), (Line.CONFLICT, "replace"), (Line.GONE, "remove")):
                for row in diff.rows(line):
                    self.say(f"{sign} {display(row.path)}")
        if len(self._pair.baseline.base) == 0:
            self._announce_first(sight, diff)

    def _announce_first(self, sight: Sight, diff: Diff) -> None:
        entries, total = diff.count(Line.CHANGED), diff.bytes(Line.CHANGED)
        self._scanned = (self._pair.control.entries, self._pair.control.bytes)
        self._total = (entries, total)
        about = os.statvfs(self._pair.settings.target)
        free = about.f_bavail * about.f_frsize
        if total <= BIG_BYTES and entries <= BIG_ENTRIES and total <= free / 2:
            return
        text = f"first copy: {entries} entries, {size(total)}; {size(free)} free on the target's filesystem"
        listed = "\n".join(f"  {size(count):>10}  --ignore '/{name}/'" for name, count in largest(sight))
        if total > free:
            largest_too = f" The largest directories:\n{listed}" if listed else ""
            raise Refused(f"{text}: it does not fit. Nothing was copied.{largest_too}")
        self.say(f"{text}. The largest directories, and what leaves them out:\n{listed}" if listed else text)

    def cycle(self, done: CycleReport) -> None:
        """Show one cycle."""
        if self._as_json:
            try:
                write_json(done.as_json())
            except SyncdError as error:  # a full disk under it, say: the mirror goes on
                self._tell([str(error)])
            return
        if self._view is None and (done.put or done.removed or done.number == 1):
            lag = f", lag {done.lag * 1000:.1f} ms" if done.lag is not None else ""
            self.say(
                f"cycle {done.number}: {done.put} put, {done.removed} removed, {size(done.written)} "
                f"in {done.took * 1000:.1f} ms{lag}"
            )
        if self._told or done.problems or done.aside or done.others or done.dropped or done.notes or done.halt:
            news = [str(problem) for problem in done.problems]
            news += [f"{display(path)}: set aside as {kept}" for path, kept in done.aside]
            news += [f"{display(path)}: not mirrored (FIFO, socket or device)" for path in done.others]
            news += [f"{display(path)}: setuid or setgid not mirrored" for path in done.dropped]
            news += list(done.notes)
            if done.halt is not None and not self._once:
                news.append(str(done.halt))
            self._tell(news)
        if self._view is not None and self.runner is not None:
            with suppress(OSError):
                self._view.line(self.runner.status.line())

    def _tell(self, news: list[str]) -> None:
        """Say what was not said before; what is no longer so may be said again."""
        fresh = [text for text in news if text not in self._told]
        self._told = set(news)
        for text in fresh[:LISTED]:
            self.say(text)
        if len(fresh) > LISTED:
            self.say(f"… and {len(fresh) - LISTED} more; see: syncd status")


def largest(sight: Sight) -> list[tuple[str, int]]:
    """The top-level directories with the most bytes of files, largest first."""
    sums: Counter[bytes] = Counter()
    for path, entry in sight.source.rows():
        top, slash, _ = path.partition(b"/")
        if slash and entry.kind is Kind.FILE:
            sums[top] += entry.seen.size
    return [(display(name), count) for name, count in sums.most_common(LARGEST)]
