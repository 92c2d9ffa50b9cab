"""The terminal: a bar while the first copy runs, then one line that is redrawn by cycles only."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn
from rich.text import Text


class Live:
    """Owns the last line of the terminal. NO_COLOR is honoured by rich."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False)
        self._bar: Progress | None = None
        self._drawn = False

    def say(self, text: str) -> None:
        """One line that stays, above the live one."""
        self._clear()
        (self._bar.console if self._bar is not None else self._console).print(Text(text))

    def progress(self, entries: int, count: int, all_entries: int, all_bytes: int) -> None:
        """How far the first copy is."""
        if self._bar is None:
            self._bar = Progress(
                "{task.description}", BarColumn(), DownloadColumn(), TransferSpeedColumn(),
                TimeRemainingColumn(), console=self._console, transient=True, auto_refresh=False,
            )  # fmt: skip
            self._bar.start()
            self._task = self._bar.add_task("scanning", total=None)
        if all_entries:
            self._bar.update(
                self._task, description=f"copying {min(entries, all_entries)}/{all_entries} entries",
                completed=min(count, all_bytes), total=all_bytes,
            )  # fmt: skip
        else:
            self._bar.update(self._task, description=f"scanning, {entries} entries")
        self._bar.refresh()

    def line(self, text: str) -> None:
        """Redraw the live line."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
        self._clear()
        shown = Text(text)
        shown.truncate(self._console.width - 1, overflow="ellipsis")
        self._console.print(shown, end="")
        self._drawn = True

    def close(self) -> None:
        """Leave the terminal as it was."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
        if self._drawn:
            self._console.print()

    def _clear(self) -> None:
        if self._drawn:
            self._console.file.write("\r\x1b[2K")
            self._console.file.flush()
            self._drawn = False
