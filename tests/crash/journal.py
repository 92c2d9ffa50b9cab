"""Reads syncd's journal with nothing but the documented format: are there intents without outcomes?"""

from __future__ import annotations

import struct
from pathlib import Path

import xxhash

MAGIC = b"SYNCDB1\n"


def frames(file: Path) -> list[bytes]:
    """The payloads of the good frames of a journal."""
    body = file.read_bytes()
    if not body.startswith(MAGIC):
        return []
    at, found = len(MAGIC), []
    while at + 12 <= len(body):
        length, check = struct.unpack_from("<IQ", body, at)
        payload = body[at + 12 : at + 12 + length]
        if len(payload) < length or xxhash.xxh3_64(payload).intdigest() != check:
            break
        found.append(payload)
        at += 12 + length
    return found


def intent_is_open(state: Path) -> bool:
    """Whether the newest journal below `state` ends its rows with intents that nothing closes."""
    journals = sorted(state.rglob("journal.*"), key=lambda path: int(path.suffix[1:]))
    if not journals:
        return False
    kinds = [payload[:1] for payload in frames(journals[-1])]
    rows = [kind for kind in kinds if kind in (b"I", b"O")]
    return bool(rows) and rows[-1] == b"I"
