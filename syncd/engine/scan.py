"""Both roots (and a batch) -> what stands there, with no doubt left that the table cares for."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import NamedTuple

from syncd.kernel.contract import Base, Control, Kernel, Look, Root, Rules, Side, Tree
from syncd.model.change import Batch


class Sight(NamedTuple):
    """What one cycle saw."""

    source: Tree
    target: Tree


def looks(batch: Batch) -> list[Look]:
    """The places a batch asks to look at, if not everything."""
    return [Look(path, path in batch.deep) for path in batch.paths]


def scan(
    kernel: Kernel,
    roots: tuple[Root, Root],
    rules: Rules,
    base: Base,
    scope: Sequence[Look] | None,
    control: Control,
    *,
    force: bool = False,
    exact: bool = False,
    trusted: bool = True,
    source: Tree | None = None,
) -> Sight:
    """Look at both sides. Blocks on the disk; OSError only where a root itself fails.

    `exact` hashes whatever is in doubt; not `trusted`: no fingerprint of the target is believed. `source` is what was seen
    of it, if somebody looked there already.
    """
    if source is None:
        source = kernel.scan(roots[0], rules, Side.SOURCE, base, scope, control, force)
    believed = base if trusted else kernel.empty_base()
    target = kernel.scan(roots[1], rules, Side.TARGET, believed, source, control)
    source, target = kernel.digest(base, source, target, roots, control, exact or not trusted)
    return Sight(source, target)


def is_bare(root: Root) -> bool:
    """Whether a directory holds nothing at all, ignored names included: an unmounted source looks so."""
    with os.scandir(f"/proc/self/fd/{root.fd}") as entries:
        return next(entries, None) is None
