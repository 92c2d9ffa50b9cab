"""What is to be done: a verb for each line of the table."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import NamedTuple

from syncd.model.change import Line


class Verb(StrEnum):
    """What `place` does at a path. The order within a batch is the kernel's (see contract)."""

    LEAVE = "leave"  # nothing
    RECORD = "record"  # learn both fingerprints; write the target's mode and mtime if they differ
    PUT = "put"  # make the target hold what the source holds
    REMOVE = "remove"  # remove the target's entry
    REPLACE = "replace"  # set the target's entry aside, then put the source's, if there is one


class Plan(NamedTuple):
    """The verbs of one cycle with the counts that guards read.

    `removals` counts the paths that leave the target; `unexplained` those of them that no
    event, index change or directory time vouches for. `known` counts baseline entries.
    """

    verbs: Mapping[Line, Verb]
    counts: Mapping[Line, int]
    removals: int = 0
    unexplained: int = 0
    known: int = 0
    id: str = ""  # names this set of removals; `approve` lets exactly it through
    notes: tuple[str, ...] = ()

    @property
    def acts(self) -> int:
        """How many paths would be touched or recorded."""
        return sum(n for line, n in self.counts.items() if self.verbs.get(line, Verb.LEAVE) != Verb.LEAVE)
