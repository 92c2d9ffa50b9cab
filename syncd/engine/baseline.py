"""What both sides agreed on, on disk: a checkpoint and the journals after it.

`baseline.N` is a checkpoint, `journal.N` what happened after it; one more generation is kept, so that
a damaged checkpoint costs reading more, not knowing less. Frames and rows: `Kernel.save_tree`.

    must     a row names only content that stands in the target
    must     intents are in the journal before the target is touched
    should   a checkpoint is flushed before its predecessor goes
    not promised: mirrored files last through a power cut. An unclean boot or mount is noticed
    and everything is compared by content.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from syncd.kernel.contract import Base, Intent, Kernel, Outcomes
from syncd.model.entry import Agreed
from syncd.system.savefile import SaveFile

SMALLEST = 1 << 20  # bytes of journal that are never worth a checkpoint
SHARE = 4  # a checkpoint is due when the journal is larger than 1/SHARE of it
TRIES = 5  # to read beside a running watch
FILE = re.compile(r"(baseline|journal)\.(\d+)")


class Baseline:
    """The baseline of one pair, open for one writer (the target's lock is held)."""

    def __init__(self, kernel: Kernel, directory: Path, *, reading: bool = False) -> None:
        """Load what stands in `directory` (made if missing, unless only `reading`).

        Damaged content never raises: see `whole`.
        """
        self.kernel = kernel
        self.directory = directory
        if not reading:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.notes: dict[str, Any] = {}
        self.whole = True  # False: something was damaged; trust content only
        self.known = False  # whether this pair has had a baseline before
        self.intents: list[Intent] = []
        self.base: Base = kernel.empty_base()
        self.generation = 0
        self.journal = -1
        self._postponed = 0  # bytes of journal below which no checkpoint is tried, after one that failed
        for left in reversed(range(TRIES)):
            try:
                self._load()
                break
            except FileNotFoundError:  # a running watch wrote two checkpoints meanwhile
                if not left:
                    raise

    def open(self, run: Mapping[str, Any] | None) -> None:
        """Begin to write: note `run` (where this run stands) in the journal, if there is one. Raises OSError."""
        if self.known and self.whole:
            self.journal = self._open_journal(self.generation)
        else:
            self.checkpoint()  # never append to a damaged journal; a journal always has its checkpoint
        self.note(**({} if run is None else {"run": dict(run)}), clean=False)

    def note(self, **values: Any) -> None:
        """Remember values beside the rows (JSON). Not flushed. Raises OSError."""
        self.kernel.note(self.journal, json.dumps(values, sort_keys=True).encode())
        self.notes |= values

    def learn(self, outcomes: Outcomes) -> None:
        """Take in what `place` did; it journalled that itself."""
        self.base = self.kernel.patch(self.base, outcomes)

    def settle(self, rows: list[tuple[bytes, Agreed | None]]) -> None:
        """Set or drop single rows, journalled. Raises OSError."""
        self.base = self.kernel.settle(self.base, rows, self.journal)

    def forget(self) -> None:
        """Begin anew, before `open`: this target was never mirrored."""
        self.base, self.intents, self.notes = self.kernel.empty_base(), [], {}
        self.known = False  # `open` begins a new generation; the old files go

    def dropped(self) -> list[tuple[bytes, Agreed]]:
        """Rows of the files still kept, at paths that the baseline has no more. Raises OSError. For recovery.

        A path that was written several times is there as often: the disk may remember any of them.
        """
        fds: list[int] = []
        try:
            fds += [os.open(path, os.O_RDONLY | os.O_CLOEXEC) for path, _, _ in self._files()]
            return [(path, row) for path, row in self.kernel.former(fds, self.base) if path]
        finally:
            for fd in fds:
                os.close(fd)

    def checkpoint_if_due(self) -> None:
        """Write one when the journal has grown past its share of the last one.

        One that cannot be written (no room for a second baseline) is tried again when the journal has doubled: that
        knows everything, and is only read for longer at the next start.
        """
        size = os.fstat(self.journal).st_size
        if size <= max(SMALLEST, self._postponed):
            return
        try:
            if size * SHARE <= (self.directory / f"baseline.{self.generation}").stat().st_size:
                return
        except FileNotFoundError:
            pass
        try:
            self.checkpoint()
            self._postponed = 0
        except OSError:
            self._postponed = 2 * size

    def checkpoint(self) -> None:
        """Write a new checkpoint beside the old one, flushed, and start a new journal. Raises OSError.

        After an error the old files are as they were and go on being used.
        """
        number = self.generation + 1
        path = self.directory / f"baseline.{number}"
        try:
            with SaveFile(path) as file:
                self.kernel.save_tree(self.base, [json.dumps(self.notes, sort_keys=True).encode()], file.fileno())
            journal = self._open_journal(number)
        except BaseException:
            path.unlink(missing_ok=True)  # or the next run would not read what the old journal goes on to say
            raise
        if self.journal >= 0:
            os.close(self.journal)
        self.journal, self.generation = journal, number
        for old, _, its_number in self._files():
            if its_number < number - 1:
                old.unlink(missing_ok=True)

    def _open_journal(self, number: int) -> int:
        path = self.directory / f"journal.{number}"
        return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def close(self, *, clean: bool, **values: Any) -> None:
        """Stop writing. `clean` says that the target was flushed before: then this mark is, too."""
        if self.journal < 0:
            return
        try:
            if clean:
                self.note(clean=True, **values)
                self.checkpoint()  # flushed, and the mark is in it
        finally:
            os.close(self.journal)
            self.journal = -1

    def _files(self) -> list[tuple[Path, str, int]]:
        if not self.directory.is_dir():
            return []
        matches = [(path, FILE.fullmatch(path.name)) for path in self.directory.iterdir()]
        return [(path, match[1], int(match[2])) for path, match in matches if match]

    def _load(self) -> None:
        files = self._files()
        self.whole = True
        self.known = bool(files)
        self.generation = max((number for _, _, number in files), default=0)
        checkpoints = sorted((number for _, kind, number in files if kind == "baseline"), reverse=True)
        for start in checkpoints:
            journals = sorted(number for _, kind, number in files if kind == "journal" and number >= start)
            paths = [self.directory / f"baseline.{start}"]
            if self._read(paths + [self.directory / f"journal.{number}" for number in journals]):
                return
            self.whole = False
        self.whole = not files

    def _read(self, paths: list[Path]) -> bool:
        """Take over what `paths` (a checkpoint, then journals) say; False if the checkpoint is damaged."""
        fds: list[int] = []
        try:
            fds += [os.open(path, os.O_RDONLY | os.O_CLOEXEC) for path in paths]
            loaded = self.kernel.load_tree(fds)
        finally:
            for fd in fds:
                os.close(fd)
        if not loaded.whole and not loaded.notes:
            return False  # a checkpoint begins with its note, so this one could not be read
        self.base, self.intents = loaded.base, loaded.intents
        self.whole = self.whole and loaded.whole
        for note in loaded.notes:
            try:
                self.notes |= json.loads(note)
            except ValueError:
                self.whole = False
        return True
