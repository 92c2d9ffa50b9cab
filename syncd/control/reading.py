"""Looks at a pair without writing anything: for `diff`, `verify`, `drift` and `--dry-run`.

Works beside a running watch: a baseline is read as it stands on disk.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from syncd.control.opening import check_others, check_swapped
from syncd.engine.baseline import Baseline
from syncd.engine.covered import covered
from syncd.engine.foretell import foretell
from syncd.engine.guard import Guard
from syncd.engine.ignore import compile_rules
from syncd.engine.plan import plan_mirror
from syncd.engine.scan import Sight, scan
from syncd.engine.shut import find_shut
from syncd.errors import SyncdError
from syncd.kernel.contract import Diff, Kernel, Root, Side
from syncd.model.change import Line, Row
from syncd.model.path import display
from syncd.model.plan import Plan, Verb
from syncd.model.report import Halt
from syncd.model.settings import Settings
from syncd.system.identity import identity
from syncd.system.locks import live_targets


class Reading(NamedTuple):
    """Both sides as they stood a moment ago, and what a cycle would do about it."""

    sight: Sight
    diff: Diff
    plan: Plan
    halt: Halt | None  # a cycle would stop before it does any of it
    shut: list[bytes]  # directories of the target whose rights it would give back first, and then see what they hold
    told: Mapping[bytes, Verb]  # what is done at single paths, where that is not what `plan` says of their line

    def verb(self, line: Line, row: Row) -> Verb:
        """What a cycle would do at the path of a row."""
        return self.told.get(row.path, self.plan.verbs.get(line, Verb.LEAVE))

    def drifted(self, line: Line) -> list[Row]:
        """The rows of a line of drift; none where a cycle would make all of them again, since the target was cleared."""
        return self.diff.rows(line) if self.plan.verbs.get(line, Verb.LEAVE) is Verb.LEAVE else []


def read(
    settings: Settings, kernel: Kernel, state: Path, *, by_content: bool = False, approved: str | None = None
) -> Reading:
    """Look at both sides. `by_content`: believe no fingerprint, hash every file that could be equal.

    `approved` is the set of removals that the cycle would be let through with.
    Blocks on the disk. Raises SyncdError when a root cannot be opened.
    """
    baseline = Baseline(kernel, state, reading=True)
    rules = compile_rules(kernel, settings)
    here = identity(settings.target) if os.path.lexists(settings.target) else None
    another = baseline.notes.get("target", here) != here  # a cycle would begin anew with it
    base = kernel.empty_base() if another else baseline.base
    control = kernel.control()
    with open_roots(settings, kernel, covered(settings.target, base, rules)) as roots:
        source = kernel.scan(roots[0], rules, Side.SOURCE, kernel.empty_base(), None, control) if by_content else None
        sight = scan(kernel, roots, rules, base, None, control, exact=True, trusted=not by_content, source=source)
        shut = find_shut(roots[1], base, sight)
        diff = kernel.diff(base, sight.source, sight.target)
        plan = plan_mirror(diff, settings.drift, len(base), pair=settings.name)
        told = foretell(diff, plan, roots, rules)
    halt = _halt(settings, baseline, plan, first=another, approved=approved or "")
    return Reading(sight, diff, plan, halt, shut, told)


def _halt(settings: Settings, baseline: Baseline, plan: Plan, *, first: bool, approved: str) -> Halt | None:
    """What a cycle that begins now would be stopped by, without the removals of the last minute."""
    try:
        check_others(settings, live_targets())
        check_swapped(settings, baseline)
    except SyncdError as refusal:
        return Halt(str(refusal))
    conflicts = plan.counts[Line.CONFLICT]
    if conflicts and not settings.adopt and (first or not baseline.notes.get("met")):
        return Halt(f"a first meeting, and {conflicts} entries differ; --adopt sets them aside and goes on")
    here = identity(settings.source)
    bare = bool(plan.removals or conflicts) and not os.listdir(settings.source)
    replaced = baseline.notes.get("source", here) != here
    guard = Guard(settings.guard)
    guard.approved = approved
    checked = guard.check(plan, 0.0, bare=bare, replaced=replaced)
    return checked if isinstance(checked, Halt) else None


@contextmanager
def open_roots(settings: Settings, kernel: Kernel, hidden: Collection[bytes] = ()) -> Iterator[tuple[Root, Root]]:
    """Both roots, to be read; a target that is not there yet is as good as empty. Raises SyncdError.

    `hidden` are paths of the target over which something is mounted.
    """
    with ExitStack() as opened:
        roots = []
        for name, path in (("SOURCE", settings.source), ("TARGET", settings.target)):
            if name == "TARGET" and not os.path.lexists(path):
                path = os.fsencode(opened.enter_context(TemporaryDirectory(prefix="syncd-")))  # as good as empty
            elif not os.access(path, os.R_OK | os.X_OK):
                raise SyncdError(
                    f"{name} {display(path)} cannot be read; give this user the right to read and enter it"
                )
            try:
                root = kernel.open_root(path, hidden if name == "TARGET" else ())
                roots.append(opened.enter_context(closing(root)))
            except OSError as error:
                raise SyncdError(f"{name} {display(path)} cannot be opened: {error.strerror}") from None
        yield roots[0], roots[1]
