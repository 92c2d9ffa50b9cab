"""The control block of a call."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class PureControl:
    """Shared between a running call and the thread that watches it."""

    cancelled: bool = False
    entries: int = 0
    bytes: int = 0
