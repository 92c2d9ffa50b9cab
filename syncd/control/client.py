"""Asks a running watch: JSON-RPC 2.0, one object a line, over its socket. Blocking; imports almost nothing."""

from __future__ import annotations

import json
import os
import socket
import time
from pathlib import Path
from typing import Any

from syncd.errors import NothingRunning, SyncdError, TimedOut, UsageError
from syncd.model.path import display
from syncd.system.dirs import Pair, find_by_target, pair_dir, socket_path

STARTING = 5.0  # seconds that a watch may take until it listens


def find_pair(source: bytes, target: bytes | None) -> tuple[bytes, bytes, Path]:
    """(source, target, state directory) of a pair named by both paths, or by its target alone.

    Raises NothingRunning when TARGET alone is given and no pair is known for it, UsageError where a path is empty.
    """
    if not source or target == b"":  # an unset variable of a script, not the current directory
        name = "TARGET" if source or target is None else "SOURCE"
        raise UsageError(f"{name} is empty; for the current directory write .")
    if target is not None:
        return os.path.realpath(source), os.path.realpath(target), pair_dir(source, target)
    known = find_by_target(source)
    if not known:
        raise NothingRunning(f"no pair with the target {display(source)} is known here; name it as: SOURCE TARGET")
    return known[0] if len(known) == 1 else _likeliest(known)


def _likeliest(known: list[Pair]) -> Pair:
    """Of pairs with one target: the one that runs, else the first that was mirrored and not only refused."""
    from syncd.engine.baseline import Baseline
    from syncd.kernel.choose import load
    from syncd.system.locks import live_targets

    live = {(holder.source, holder.target) for holder in live_targets()}
    for pair in known:
        if (pair.source, pair.target) in live:
            return pair
    kernel = load()
    mirrored = (pair for pair in known if Baseline(kernel, pair.state, reading=True).notes.get("met"))
    return next(mirrored, known[0])


def ask(state: Path, method: str, timeout: float = 5.0, **params: Any) -> Any:
    """Return the answer of the watch whose state directory this is.

    Raises NothingRunning, TimedOut after `timeout` seconds, or the SyncdError that the watch answered.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as line:
        line.settimeout(timeout)
        _connect(line, state)
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


def is_watched(state: Path) -> bool:
    """Whether a watch answers for the pair whose state directory this is."""
    try:
        ask(state, "status")
    except SyncdError:
        return False
    return True


def rules_of_watch(state: Path) -> dict[str, Any] | None:
    """The fields of `Settings` that are rules, of the watch whose state directory this is. None: nobody uses the pair.

    Raises SyncdError where somebody does, and does not say.
    """
    from syncd.system.flocks import is_taken

    try:
        theirs = ask(state, "rules")
    except NothingRunning:
        if is_taken(state):
            raise SyncdError(
                "a sync, a watch before its first copy has ended, or one with another XDG_RUNTIME_DIR"
            ) from None
        return None
    return {
        "ignore": tuple(theirs["ignore"]),
        "ignore_from": tuple((name, bytes.fromhex(text)) for name, text in theirs["ignore_from"]),
        "overlays": tuple(bytes.fromhex(path) for path in theirs["overlays"]),
        "vcs": theirs["vcs"],
        "gitignore": theirs["gitignore"],
    }


def _connect(line: socket.socket, state: Path) -> None:
    """Connect. A watch that has just started copies before it listens: it gets a moment for that."""
    until = time.monotonic() + STARTING
    while True:
        try:
            line.connect(str(socket_path(state)))
            return
        except (FileNotFoundError, ConnectionRefusedError):
            if time.monotonic() >= until or not _is_starting(state):
                break
            time.sleep(0.02)
    raise NothingRunning("no watch is running for this pair; start one: syncd watch SOURCE TARGET")


def _is_starting(state: Path) -> bool:
    """Whether a process that holds this pair's target began less than STARTING seconds ago."""
    from syncd.system.locks import live_targets

    began = time.time() - STARTING
    return any(pair_dir(each.source, each.target) == state for each in live_targets() if each.started >= began)
