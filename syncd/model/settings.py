"""What the engine is told, with the default beside each field."""

from __future__ import annotations

from typing import NamedTuple


class Timing(NamedTuple):
    """How long words settle. Seconds; see docs/design/overview.md for the reasons."""

    few: int = 8  # more paths than this within `quiet` are a burst
    many: int = 500  # more paths than this in one burst are a flood
    quiet: float = 0.030
    hold: float = 0.250
    flood_quiet: float = 0.060
    flood_hold: float = 2.0
    released: float = 0.005  # after a version control lock went
    left_behind: float = 10.0  # a version control lock that is there for so long holds nothing back any more


class Settings(NamedTuple):
    """One pair and how it is kept. `source` and `target` are absolute real paths."""

    source: bytes
    target: bytes
    ignore: tuple[str, ...] = ()  # patterns of the command line, in `.gitignore` grammar
    ignore_from: tuple[tuple[str, bytes], ...] = ()  # (name, text) of rule files outside the source
    overlays: tuple[bytes, ...] = ()
    vcs: bool = False  # mirror .git and its like
    gitignore: bool = False  # let .gitignore files of the source speak
    write: str = "auto"  # auto | replace | inplace
    drift: str = "keep"  # keep | mirror
    guard: str = "full"  # full | roots
    watcher: str = "auto"
    adopt: bool = False  # a first meeting may set aside what the target holds
    owner: tuple[int, int] | None = None
    timing: Timing = Timing()

    @property
    def name(self) -> bytes:
        """The pair, as no other one is called."""
        return self.source + b"\0" + self.target


RULE_NAMES = ("ignore", "ignore_from", "overlays", "vcs", "gitignore")  # the fields that say what is mirrored
