"""Where syncd keeps things: a state directory for each pair, a runtime directory for locks and sockets."""

from __future__ import annotations

import json
import os
import re
import stat
import sys
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import xxhash

from syncd.errors import Refused, SyncdError

PAIR_FILE = "pair.json"
SOCKET_LIMIT = 107  # bytes of a socket's path on Linux, without the closing zero
TEMPORARY = Path("/tmp")  # only a directory in it whose owner and mode are checked


class Pair(NamedTuple):
    """One source and its target, both as real paths, and where its state is kept."""

    source: bytes
    target: bytes
    state: Path


def state_home() -> Path:
    """The directory that holds all state directories. Not made here. Raises SyncdError where this user has no home."""
    if sys.platform != "linux":
        from platformdirs import user_state_path

        return user_state_path("syncd", appauthor=False)
    # By hand, since `import platformdirs` takes a quarter of the time `watch` has before it scans.
    given = os.environ.get("XDG_STATE_HOME", "")
    if os.path.isabs(given):
        return Path(given, "syncd")
    try:
        return Path.home() / ".local" / "state" / "syncd"
    except RuntimeError:  # no HOME, and the user stands in no list
        raise SyncdError(
            "this user has no home directory, where the state of a pair would be kept; set HOME or XDG_STATE_HOME"
        ) from None


def pair_dir(source: bytes, target: bytes) -> Path:
    """The state directory of a pair: the same for every spelling of the two paths. Not made here."""
    real = os.path.realpath(target)
    name = re.sub(r"[^A-Za-z0-9._-]+", "_", os.path.basename(real).decode("utf-8", "replace"))[:40]
    return state_home() / f"{name or 'root'}-{_digest(os.path.realpath(source), real)}"


def make_pair_dir(source: bytes, target: bytes) -> Path:
    """The state directory of a pair, made if it is not there (0700), with its `pair.json`. Raises Refused if another user's."""
    state = pair_dir(source, target)
    from syncd.system.savefile import SaveFile  # late: `status` only reads

    try:
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise SyncdError(
            f"the state directory {state} cannot be made: {error.strerror}. Make room or give the right to write there, or "
            "set XDG_STATE_HOME to another directory"
        ) from None
    owner = state.stat().st_uid
    if owner != os.geteuid() and owner != _owner_in(state):
        raise Refused(
            f"{state} belongs to user {owner}: what is written there now, that user could not read. Run syncd as that user, "
            "or set XDG_STATE_HOME to a directory of your own"
        )
    if _load(state) is None:
        text = json.dumps({"source": _text(source), "target": _text(target)})  # surrogates become escapes
        with SaveFile(state / PAIR_FILE) as file:
            file.write(text.encode("ascii"))
    return state


def _owner_in(state: Path) -> int:
    """The owner of what this process makes there: a share may know this user by another number."""
    import tempfile

    try:
        with tempfile.TemporaryFile(dir=state) as file:
            return os.fstat(file.fileno()).st_uid
    except OSError:
        return os.geteuid()


def _text(path: bytes) -> str:
    return os.fsdecode(os.path.realpath(path))


def find_by_target(target: bytes) -> list[Pair]:
    """The pairs known for this target, the one last written first. A state directory that cannot be read is none."""
    real = os.path.realpath(target)
    try:
        found = [pair for state in state_home().iterdir() if (pair := _load(state)) is not None and pair.target == real]
        return sorted(found, key=lambda pair: _last_written(pair.state), reverse=True)
    except FileNotFoundError:
        return []


def _last_written(state: Path) -> int:
    """When a run last added to what stands there: its journal grows for hours while the directory itself stays as it is."""
    times = [state.stat().st_mtime_ns]
    for path in state.glob("journal.*"):
        with suppress(FileNotFoundError):  # a running watch wrote a checkpoint meanwhile
            times.append(path.stat().st_mtime_ns)
    return max(times)


def _load(state: Path) -> Pair | None:
    try:
        body = json.loads((state / PAIR_FILE).read_bytes())
        return Pair(os.fsencode(body["source"]), os.fsencode(body["target"]), state)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def runtime_dir() -> Path:
    """The directory for locks and sockets, 0700 and the user's own; made if it is not there.

    `$XDG_RUNTIME_DIR/syncd`, else `/run/user/<uid>/syncd`, else `/tmp/syncd-<uid>`.
    Raises Refused if what stands there belongs to somebody else, is a link or is open to others.
    """
    given = os.environ.get("XDG_RUNTIME_DIR", "")
    for base in (given, f"/run/user/{os.getuid()}"):
        if os.path.isabs(base) and _is_own(base):
            return _own(Path(base, "syncd"))
    return _own(TEMPORARY / f"syncd-{os.getuid()}")


def _is_own(path: str) -> bool:
    """After `su` the variable still names the directory of the user before."""
    try:
        seen = os.stat(path)
    except OSError:
        return False
    return stat.S_ISDIR(seen.st_mode) and seen.st_uid == os.getuid()


def _own(path: Path) -> Path:
    try:
        path.mkdir(mode=0o700)
    except FileExistsError:
        seen = path.lstat()
        if not stat.S_ISDIR(seen.st_mode) or seen.st_uid != os.getuid():
            raise Refused(
                f"{path} is not a directory of user {os.getuid()}. Move it away, or set XDG_RUNTIME_DIR."
            ) from None
        if seen.st_mode & 0o077:
            raise Refused(f"{path} is open to other users. Look at what is in it, then: chmod 700 {path}") from None
    return path


def socket_path(state: Path) -> Path:
    """Where the control socket for a state directory stands, short enough for `sockaddr_un`."""
    name = f"{_digest(os.fsencode(state))}.sock"
    path = runtime_dir() / name
    if len(os.fsencode(path)) > SOCKET_LIMIT:
        path = _own(TEMPORARY / f"syncd-{os.getuid()}") / name
    return path


def _digest(*parts: bytes) -> str:
    return xxhash.xxh3_64(b"\0".join(parts)).hexdigest()  # a name, not a secret; hashlib takes 4 ms to load
