"""State files: checkpoints and journals, both a row of frames. The format stands in the contract."""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Any

import xxhash

from syncd.kernel.contract import Base, Intent, Loaded
from syncd.kernel.pure.tree import PureBase
from syncd.model.entry import Agreed, Fingerprint, Kind
from syncd.model.path import check

MAGIC = b"SYNCDB1\n"
HEAD = struct.Struct("<IQ")
LENGTH = struct.Struct("<I")
COUNT = struct.Struct("<Q")
FIXED = struct.Struct("<BBHq16s QqqQI QqqQI")
ROWS_A_FRAME = 4096

SHARED, MOUNT = 1, 2
NOTHING = Fingerprint(0, 0, 0, 0, 0)
DROPPED = (0, 0, 0, 0, bytes(16), *NOTHING, *NOTHING)

Rows = Iterable[tuple[bytes, Agreed | None]]


class Bad(Exception):
    """A frame that was cut off, fails its checksum, or says what no frame says."""


# --- writing ------------------------------------------------------------------------------------------


def frame(kind: bytes, body: bytes) -> bytes:
    payload = kind + body
    return HEAD.pack(len(payload), xxhash.xxh3_64_intdigest(payload)) + payload


def encode(path: bytes, agreed: Agreed | None) -> bytes:
    if agreed is None:
        fixed, link = FIXED.pack(*DROPPED), b""
    else:
        flags = SHARED * agreed.shared | MOUNT * agreed.mount
        digest = agreed.digest or bytes(16)
        fixed = FIXED.pack(agreed.kind, flags, agreed.mode, agreed.mtime_ns, digest, *agreed.source, *agreed.target)
        link = agreed.link or b""
    return b"".join((LENGTH.pack(len(path)), path, fixed, LENGTH.pack(len(link)), link))


def outcomes_frame(rows: Rows) -> bytes:
    return frame(b"O", b"".join(encode(path, agreed) for path, agreed in rows))


def intents_frame(intents: Iterable[Intent]) -> bytes:
    rows = []
    for path, kind, digest, link in intents:
        agreed = Agreed(Kind(kind), 0, 0, digest, link, NOTHING, NOTHING) if kind else None
        rows.append(encode(path, agreed))
    return frame(b"I", b"".join(rows))


def append(journal: int, frames: bytes) -> None:
    """Append to a journal in one write. If that fails or is cut short, the journal is as before."""
    size = os.fstat(journal).st_size
    data = frames if size else MAGIC + frames
    written = os.write(journal, data)
    if written != len(data):
        os.ftruncate(journal, size)
        raise OSError(errno.ENOSPC, "the journal could not be written whole")


def save_tree(base: PureBase, notes: Sequence[bytes], fd: int) -> None:
    """Write a checkpoint to an empty open file."""
    rows: list[tuple[bytes, Agreed]] = [*base.rows()]
    root = base.get(b"")
    if root:
        rows.insert(0, (b"", root))
    pieces = [MAGIC, *(frame(b"N", note) for note in notes)]
    pieces += [outcomes_frame(rows[at : at + ROWS_A_FRAME]) for at in range(0, len(rows), ROWS_A_FRAME)]
    pieces.append(frame(b"E", COUNT.pack(len(rows))))
    view = memoryview(b"".join(pieces))
    while view:
        view = view[os.write(fd, view) :]


# --- reading ------------------------------------------------------------------------------------------


def load_tree(fds: Sequence[int]) -> Loaded:
    """Read a checkpoint and the journals after it. A prefix of what was written, or nothing; never other."""
    base = PureBase()
    notes: list[bytes] = []
    intents: list[Intent] = []
    for number, fd in enumerate(fds):
        data = read_all(fd)
        try:
            if number == 0:
                read_checkpoint(data, base, notes)
            else:
                read_journal(data, base, notes, intents)
        except Bad:
            if number == 0:
                return Loaded(PureBase(), [], [], False)
            return Loaded(base, notes, intents, False)
    return Loaded(base, notes, intents, True)


def former(fds: Sequence[int], base: Base) -> list[tuple[bytes, Agreed]]:
    """See the contract."""
    found: list[tuple[bytes, Agreed]] = []
    for fd in fds:
        with suppress(Bad):
            for kind, body in frames(read_all(fd)):
                if kind == b"O":
                    found += [(path, row) for path, row in decode(body) if row and base.get(path) is None]
    return found


def read_all(fd: int) -> bytes:
    pieces = []
    offset = 0
    while piece := os.pread(fd, 1 << 20, offset):
        pieces.append(piece)
        offset += len(piece)
    return b"".join(pieces)


def read_checkpoint(data: bytes, base: PureBase, notes: list[bytes]) -> None:
    count = 0
    ended = False
    for kind, body in frames(data):
        if ended:
            raise Bad
        if kind == b"N":
            notes.append(body)
        elif kind == b"O":
            rows = list(decode(body))
            base.learn(rows)
            count += len(rows)
        elif kind == b"E" and body == COUNT.pack(count):
            ended = True
        else:
            raise Bad
    if not ended:
        raise Bad


def read_journal(data: bytes, base: PureBase, notes: list[bytes], intents: list[Intent]) -> None:
    if not data:
        return
    for kind, body in frames(data):
        if kind == b"N":
            notes.append(body)
        elif kind == b"O":
            base.learn(list(decode(body)))
            intents.clear()
        elif kind == b"I":
            rows = list(decode(body))
            intents += [
                Intent(path, agreed.kind, agreed.digest, agreed.link) if agreed else Intent(path, 0, None, None)
                for path, agreed in rows
            ]
        else:
            raise Bad


def frames(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The frames of a file, kind and body. Raises Bad at the first that is not whole."""
    if not data.startswith(MAGIC):
        raise Bad
    at = len(MAGIC)
    while at < len(data):
        (length, checksum), at = take(HEAD, data, at)
        payload = data[at : at + length]
        if not payload or len(payload) != length or xxhash.xxh3_64_intdigest(payload) != checksum:
            raise Bad
        at += length
        yield payload[:1], payload[1:]


def decode(body: bytes) -> Iterator[tuple[bytes, Agreed | None]]:
    at = 0
    while at < len(body):
        path, at = counted(body, at)
        (kind, flags, mode, mtime_ns, digest, *seen), at = take(FIXED, body, at)
        link, at = counted(body, at)
        try:
            check(path)
        except ValueError:
            raise Bad from None
        if kind == 0:
            yield path, None
        elif kind in (Kind.FILE, Kind.DIR, Kind.LINK):
            yield (
                path,
                Agreed(
                    Kind(kind),
                    mode,
                    mtime_ns,
                    digest if kind == Kind.FILE else None,
                    link if kind == Kind.LINK else None,
                    Fingerprint(*seen[:5]),
                    Fingerprint(*seen[5:]),
                    bool(flags & SHARED),
                    bool(flags & MOUNT),
                ),
            )
        else:
            raise Bad


def take(form: struct.Struct, data: bytes, at: int) -> tuple[tuple[Any, ...], int]:
    try:
        return form.unpack_from(data, at), at + form.size
    except struct.error:
        raise Bad from None


def counted(data: bytes, at: int) -> tuple[bytes, int]:
    (length,), at = take(LENGTH, data, at)
    piece = data[at : at + length]
    if len(piece) != length:
        raise Bad
    return piece, at + length
