"""A real `syncd watch` in a process of its own, with a state and a runtime directory of its own."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

SYNCD = [sys.executable, "-m", "syncd"]
LIMIT = 60.0  # seconds after which waiting is given up


def environment(home: Path, **more: str) -> dict[str, str]:
    """The environment of a syncd whose state and sockets stand below `home`."""
    (home / "run").mkdir(parents=True, exist_ok=True, mode=0o700)
    return os.environ | {"XDG_STATE_HOME": str(home / "state"), "XDG_RUNTIME_DIR": str(home / "run")} | more


class Watching:
    """A running watch. `reports` are its JSON records so far."""

    def __init__(
        self, source: Path, target: Path, home: Path, *options: str, prefix: Sequence[str] = (), **env: str
    ) -> None:
        self.source, self.target = source, target
        self.env = environment(home, **env)
        self.reports: list[dict[str, Any]] = []
        self._lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self.process = subprocess.Popen(
            [*prefix, *SYNCD, "watch", str(source), str(target), "--json", *options],
            env=self.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        """In a thread of its own: a watch must never wait for a test that reads no records."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line)
        self._lines.put(b"")

    def report(self, limit: float = LIMIT) -> dict[str, Any]:
        """The next record; fails if the watch ends or `limit` seconds pass first."""
        try:
            line = self._lines.get(timeout=max(0.0, limit))
        except queue.Empty:
            raise AssertionError("no report in time") from None
        assert line, f"the watch ended: {self.errors()}"
        record: dict[str, Any] = json.loads(line)
        self.reports.append(record)
        return record

    def passed(self) -> list[dict[str, Any]]:
        """All records so far, those included that nobody waited for."""
        while not self._lines.empty():
            self.report()
        return self.reports

    def until(self, wanted: str, limit: float = LIMIT) -> dict[str, Any]:
        """The next record in which `wanted` (a key) is true."""
        deadline = time.monotonic() + limit
        while True:
            record = self.report(deadline - time.monotonic())
            if record[wanted]:
                return record

    def run(self, command: str, *arguments: str, limit: float = LIMIT) -> subprocess.CompletedProcess[str]:
        """Run another command on this pair."""
        answer = run(command, str(self.source), str(self.target), *arguments, env=self.env, limit=limit)
        if answer.returncode == 4 and self.process.poll() not in (0, None):
            raise AssertionError(f"the watch ended: {self.errors()}")
        return answer

    def status(self) -> dict[str, Any]:
        """The record of `syncd status --json`."""
        answer = self.run("status", "--json")
        assert answer.returncode == 0, answer.stderr
        record: dict[str, Any] = json.loads(answer.stdout)
        return record

    def flush(self, *arguments: str) -> int:
        """The exit code of `syncd flush`."""
        return self.run("flush", *arguments).returncode

    def errors(self) -> str:
        """What a watch that ended said on stderr."""
        self.process.wait(LIMIT)
        assert self.process.stderr is not None
        return self.process.stderr.read().decode()

    def stop(self, number: int = signal.SIGTERM) -> int:
        """End it and return its exit code."""
        self.process.send_signal(number)
        return self.process.wait(LIMIT)

    def close(self) -> None:
        """Kill it if it still runs."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self._reader.join(LIMIT)
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()


def without_rights() -> list[str]:
    """A command in front of another one that makes permissions count, also for root."""
    if os.geteuid() != 0:
        return []
    return ["setpriv", "--bounding-set=-all", "--inh-caps=-all", "--ambient-caps=-all"]


def run(
    command: str, *arguments: str, env: dict[str, str], limit: float = LIMIT, prefix: Sequence[str] = ()
) -> subprocess.CompletedProcess[str]:
    """Run one command of syncd to its end. `prefix` stands before its command line."""
    return subprocess.run(
        [*prefix, *SYNCD, command, *arguments], env=env, capture_output=True, text=True, timeout=limit
    )


@contextmanager
def watching(
    source: Path, target: Path, home: Path, *options: str, prefix: Sequence[str] = (), **env: str
) -> Iterator[Watching]:
    """A watch whose first cycle has ended. `prefix` stands before its command line."""
    watch = Watching(source, target, home, *options, prefix=prefix, **env)
    try:
        watch.report()
        yield watch
    finally:
        watch.close()
