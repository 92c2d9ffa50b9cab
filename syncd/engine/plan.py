"""The table: the lines of a diff -> what is done with each. Pure.

    line       S, T, B                        drift = "keep"             drift = "mirror"
    agreed     S = T                          record, at most metadata   same
    changed    T = B, S is other              put                        same
    gone       T = B, S is missing            remove                     same
    lost       S = B, T is missing            leave (drift)              put
    edited     S = B, T is other              leave (drift)              set aside, put
    made       B and S missing, T there       leave (drift)              set aside
    conflict   all differ                     set aside, put or remove   same
    unknown    a side could not be read       leave                      same

After an unclean boot or mount the target's own damage is no drift: lost and edited are made again. A target
that lost most of its entries was cleared, not edited: they are made again too.
"""

from __future__ import annotations

from collections.abc import Mapping

import xxhash

from syncd.kernel.contract import Diff
from syncd.model.change import Line
from syncd.model.plan import Plan, Verb

KEEP: Mapping[Line, Verb] = {
    Line.AGREED: Verb.RECORD,
    Line.CHANGED: Verb.PUT,
    Line.GONE: Verb.REMOVE,
    Line.LOST: Verb.LEAVE,
    Line.EDITED: Verb.LEAVE,
    Line.MADE: Verb.LEAVE,
    Line.CONFLICT: Verb.REPLACE,
    Line.UNKNOWN: Verb.LEAVE,
}
MIRROR: Mapping[Line, Verb] = {
    **KEEP,
    Line.LOST: Verb.PUT,
    Line.EDITED: Verb.REPLACE,
    Line.MADE: Verb.REPLACE,
}
POLICIES = {"keep": KEEP, "mirror": MIRROR}

CLEARED_SHARE = 0.5
CLEARED_COUNT = 100


def is_cleared(lost: int, known: int) -> bool:
    """Whether a target that lacks `lost` of the `known` entries of the baseline was cleared, not edited."""
    return lost > CLEARED_COUNT and lost > CLEARED_SHARE * known


def plan_mirror(diff: Diff, policy: str, known: int, *, pair: bytes = b"", damaged: bool = False) -> Plan:
    """Return the verbs for every line of `diff`. `known`: entries of the baseline before it.

    `pair` names the pair whose plan it is: an approval of one set of paths is none for another pair with such names.
    """
    verbs = POLICIES[policy]
    notes: tuple[str, ...] = ()
    counts = diff.counts()
    if damaged:
        verbs = {**verbs, Line.LOST: Verb.PUT, Line.EDITED: Verb.REPLACE}
    lost = counts[Line.LOST]
    if is_cleared(lost, known) and verbs[Line.LOST] is Verb.LEAVE:
        verbs = {**verbs, Line.LOST: Verb.PUT}
        notes = (f"the target lost {lost} of {known} entries: it was cleared, and they are made again",)
    identity = xxhash.xxh3_128_hexdigest(pair + b"\0" + diff.id.encode()) if pair and diff.id else diff.id
    return Plan(verbs, counts, counts[Line.GONE], diff.unexplained, known, identity, notes)
