"""Asks a running watch: JSON-RPC 2.0, one object a line, over its socket. Blocking; imports almost nothing."""

from __future__ import annotations

import json
import os
import socket
import time
from pathlib import Path
from typing import Any

from syncd.errors import NothingRunning, SyncdError, TimedOut
from syncd.model.path import display
from syncd.system.dirs import find_by_target, pair_dir, socket_path

STARTING = 3.0  # seconds that a watch may take between its lock and its socket
PAUSE = 0.01


def find_pair(source: bytes, target: bytes | None) -> tuple[bytes, bytes, Path]:
    """(source, target, state directory) of a pair named by both paths, or by its target alone.

    Raises NothingRunning when TARGET alone is given and no pair is known for it.
    """
    if target is not None:
        return os.path.realpath(source), os.path.realpath(target), pair_dir(source, target)
    known = find_by_target(source)
    if not known:
        raise NothingRunning(f"no pair with the target {display(source)} is known here; name it as: SOURCE TARGET")
    return known[0].source, known[0].target, known[0].state


def _connect(line: socket.socket, path: str, state: Path) -> None:
    """Connect, waiting a little for a watch that holds the target but does not listen yet."""
    deadline = time.monotonic() + STARTING
    while True:
        try:
            line.connect(path)
        except (FileNotFoundError, ConnectionRefusedError):
            if time.monotonic() > deadline or not _is_held(state):
                raise NothingRunning(
                    "no watch is running for this pair; start one: syncd watch SOURCE TARGET"
                ) from None
            time.sleep(PAUSE)
        else:
            return


def _is_held(state: Path) -> bool:
    from syncd.system.locks import live_targets

    return any(pair_dir(holder.source, holder.target) == state for holder in live_targets())


def ask(state: Path, method: str, timeout: float = 5.0, **params: Any) -> Any:
    """Return the answer of the watch whose state directory this is.

    Raises NothingRunning, TimedOut after `timeout` seconds, or the SyncdError that the watch answered.
    """
    path = str(socket_path(state))
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as line:
        line.settimeout(timeout)
        _connect(line, path, state)
        try:
            line.sendall(json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode() + b"\n")
            with line.makefile("rb") as answers:
                answer = answers.readline()
        except TimeoutError:
            raise TimedOut(f"the watch did not answer within {timeout:g} s") from None
        except ConnectionError:
            answer = b""
    if not answer.endswith(b"\n"):
        raise NothingRunning("the watch ended before it answered")
    body = json.loads(answer)
    if error := body.get("error"):
        failure = SyncdError(error["message"])
        failure.exit_code = int(error.get("data", {}).get("exit_code", 1))
        raise failure
    return body["result"]
