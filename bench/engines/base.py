"""Engines that mirror for as long as they run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from bench import proc

BENCH = Path(__file__).resolve().parent.parent
SYNCD = Path(sys.executable).with_name("syncd")
HIDDEN = ("--exclude=/.git",)  # what syncd leaves out by default and so must the others


class EngineFailed(Exception):
    """An engine did not start, did not get ready, died, or made a wrong copy."""


@dataclass(frozen=True, slots=True)
class Engine:
    """One competitor. `kind` is "syncd" (makes the first copy itself) or "peer" (is handed an equal target)."""

    name: str
    kind: str
    command: tuple[str, ...]  # SOURCE and TARGET are appended
    kernel: str = ""  # SYNCD_KERNEL

    def start(self, top: Path, scratch: Path, bare: bool = False) -> Running:
        """Start it on top/src and top/dst. `bare`: do not prepare the target of a peer."""
        if self.kind == "peer" and not bare:
            rsync(top)
        return Running(self, top, scratch)


class Running:
    """An engine at work; `with` ends it."""

    def __init__(self, engine: Engine, top: Path, scratch: Path) -> None:
        self.engine, self.source, self.target = engine, top / "src", top / "dst"
        # The state lies on the same filesystem as the target, as a home directory does; the runtime directory on
        # another, as /run does.
        self.env = os.environ | {
            "XDG_STATE_HOME": str(top / "state"),
            "XDG_DATA_HOME": str(top / "state"),
            "XDG_CONFIG_HOME": str(top / "state"),
            "XDG_RUNTIME_DIR": str(scratch / "run"),
        }
        if engine.kernel:
            self.env["SYNCD_KERNEL"] = engine.kernel
        (scratch / "run").mkdir(mode=0o700, exist_ok=True)
        (top / "state").mkdir(exist_ok=True)
        self.log = scratch / "engine.log"
        with self.log.open("wb") as log:
            self.started = time.monotonic_ns()
            self.process = subprocess.Popen(
                [*engine.command, str(self.source), str(self.target)],
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def ready(self, limit: float = 300) -> Self:
        """Wait until everything in the source is in the target and every later change will be seen."""
        end = time.monotonic() + limit
        while not self._ready_now():
            if self.process.poll() is not None:
                raise EngineFailed(f"{self.engine.name} ended: {self.said()}")
            if time.monotonic() > end:
                raise EngineFailed(f"{self.engine.name} is not ready after {limit} s: {self.said()}")
            time.sleep(0.05)
        return self

    def _ready_now(self) -> bool:
        if self.engine.kind == "peer":
            return b"ready" in self.log.read_bytes()
        flush = [str(SYNCD), "flush", str(self.source), str(self.target)]
        return subprocess.run(flush, env=self.env, capture_output=True, check=False).returncode == 0

    def said(self) -> str:
        """The end of what it printed."""
        return self.log.read_text(errors="replace")[-600:].strip()

    def pids(self) -> list[int]:
        """It and its children."""
        if self.process.poll() is not None:
            raise EngineFailed(f"{self.engine.name} ended: {self.said()}")
        return proc.family(self.process.pid)

    def stop(self) -> None:
        """End it as a person would, and by force if that does not help."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.terminate()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            raise EngineFailed(f"{self.engine.name} did not end within 30 s: {self.said()}") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.stop()
        except EngineFailed:
            if kind is None:
                raise


def rsync(top: Path) -> None:
    """Make top/dst equal to top/src, once."""
    command = ["rsync", "-a", "--delete", *HIDDEN, f"{top}/src/", f"{top}/dst/"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
