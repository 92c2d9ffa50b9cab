"""A real network share without a network: sshfs over a pipe to the local sftp-server, each way held back a while."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

ROUND_TRIP = "SYNCD_TEST_ROUND_TRIP"  # seconds
SERVERS = ("/usr/lib/openssh/sftp-server", "/usr/libexec/openssh/sftp-server", "/usr/lib/ssh/sftp-server")


def missing() -> str:
    """What a share needs and this machine lacks; "" if nothing."""
    if shutil.which("sshfs") is None:
        return "sshfs is not installed"
    if not os.path.exists("/dev/fuse"):
        return "there is no /dev/fuse"
    if not any(map(os.path.exists, SERVERS)):
        return "no sftp-server is installed"
    return ""


@contextmanager
def share(directory: Path, point: Path, round_trip: float = 0.0005, options: tuple[str, ...] = ()) -> Iterator[Path]:
    """Mount `directory` at `point` by sshfs, with further options of it such as "dir_cache=no"."""
    point.mkdir(exist_ok=True)
    pipe = f"{sys.executable} {Path(__file__).resolve()}"
    chosen = [part for option in (f"ssh_command={pipe}", *options) for part in ("-o", option)]
    command = ["sshfs", *chosen, f"pipe:{directory.resolve()}", str(point)]
    subprocess.run(command, env=os.environ | {ROUND_TRIP: str(round_trip)}, check=True, timeout=30)
    try:
        yield point
    finally:
        # Asked of a mount whose server is dead, `os.path.ismount` says no.
        while subprocess.run(["fusermount3", "-uz", str(point)], capture_output=True).returncode == 0:
            pass


class Delayed:
    """Bytes that are due later. What comes in between is not held up: only the way is long."""

    def __init__(self, delay: float) -> None:
        self._delay = delay
        self._waiting: deque[tuple[float, bytes]] = deque()
        self._some = threading.Condition()

    def put(self, piece: bytes) -> None:
        with self._some:
            self._waiting.append((time.monotonic() + self._delay, piece))
            self._some.notify()

    def get(self) -> bytes:
        with self._some:
            self._some.wait_for(lambda: self._waiting)
            due, piece = self._waiting.popleft()
        time.sleep(max(0.0, due - time.monotonic()))
        return piece


def relay(source: int, sink: int, delay: float, at_end: Callable[[], object]) -> None:
    """Carry bytes from one descriptor to another until the source ends."""
    way = Delayed(delay)

    def fill() -> None:
        while True:
            piece = os.read(source, 1 << 17)
            way.put(piece)
            if not piece:
                return

    threading.Thread(target=fill, daemon=True).start()
    while piece := way.get():
        while piece:
            piece = piece[os.write(sink, piece) :]
    at_end()


def main() -> None:
    sys.setswitchinterval(0.0005)
    delay = float(os.environ[ROUND_TRIP]) / 2
    server = subprocess.Popen(
        [next(filter(os.path.exists, SERVERS))], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
    )
    assert server.stdin is not None
    assert server.stdout is not None
    there = (0, server.stdin.fileno(), delay, server.stdin.close)
    threading.Thread(target=relay, args=there, daemon=True).start()
    relay(server.stdout.fileno(), 1, delay, lambda: None)


if __name__ == "__main__":
    main()
