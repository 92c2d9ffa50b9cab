"""A source, a target and all that a cycle needs, driven step by step."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from syncd.kernel.contract import Diff, Loaded, Look, Outcomes, PlaceOptions, RuleSource, Side, Status, Tree
from syncd.model.change import Line
from syncd.model.path import parent
from syncd.model.plan import Verb
from tests import trees

KEEP = {Line.AGREED: Verb.RECORD, Line.CHANGED: Verb.PUT, Line.GONE: Verb.REMOVE, Line.CONFLICT: Verb.REPLACE}
MIRROR = {**KEEP, Line.LOST: Verb.PUT, Line.EDITED: Verb.REPLACE, Line.MADE: Verb.REPLACE}
SLICE = 2000


class Scene:
    """Both roots below `top`, or where the arguments say."""

    def __init__(
        self,
        kernel: Any,
        top: Path,
        source: Mapping[Any, Any] | None = None,
        target: Mapping[Any, Any] | None = None,
        *,
        ignore: bytes = b"",
        nested: Sequence[bytes] = (),
        overlays: Collection[bytes] = (),
        other_mount: Path | None = None,
    ) -> None:
        beside = other_mount or top
        self.kernel = kernel
        self.source, self.target, self.staging = top / "source", beside / "target", beside / "staging"
        self.journal_path = top / "journal"
        trees.build(self.source, source or {})
        trees.build(self.target, target or {})
        self.staging.mkdir(mode=0o700, exist_ok=True)
        self.control = kernel.control()
        self.base = kernel.empty_base()
        self.rule_arguments = ([RuleSource("rules", ignore)], tuple(nested), [], tuple(overlays))
        self.rules = kernel.compile_rules(*self.rule_arguments)
        self.roots = [kernel.open_root(os.fsencode(path)) for path in (self.source, self.target)]
        self.staging_fd = os.open(self.staging, os.O_RDONLY | os.O_DIRECTORY)
        self.journal = os.open(self.journal_path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)

    def close(self) -> None:
        for root in self.roots:
            root.close()
        os.close(self.staging_fd)
        os.close(self.journal)

    def load(self) -> Loaded:
        """What a new start reads of the state files. The checkpoint is an empty one, all is in the journal."""
        fd = os.open(self.journal_path.parent / "checkpoint", os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        try:
            self.kernel.save_tree(self.kernel.empty_base(), [], fd)
            return self.kernel.load_tree([fd, self.journal])
        finally:
            os.close(fd)

    # --- steps ---------------------------------------------------------------------------------------

    def scan(self, scope: Sequence[Look] | None = None) -> tuple[Tree, Tree]:
        """Both trees, without digests."""
        source = self.kernel.scan(self.roots[0], self.rules, Side.SOURCE, self.base, scope, self.control)
        target = self.kernel.scan(self.roots[1], self.rules, Side.TARGET, self.base, source.scope, self.control)
        return source, target

    def look(self, scope: Sequence[Look] | None = None, removed: Collection[bytes] = (), exact: bool = False) -> Diff:
        """Scan, digest and diff."""
        trees_ = self.scan(scope)
        source, target = self.kernel.digest(self.base, *trees_, tuple(self.roots), self.control, exact)
        return self.kernel.diff(self.base, source, target, removed)

    def options(self, **changed: Any) -> PlaceOptions:
        return PlaceOptions(
            **{"staging": self.staging_fd, "journal": self.journal, "aside": b"conflicts/now", **changed}
        )

    def place(self, diff: Diff, verbs: Mapping[Line, Verb] = KEEP, size: int = SLICE, **options: Any) -> Outcomes:
        """Carry out all actions, slice by slice; the outcomes of the last slice are returned."""
        actions = diff.actions(verbs)
        start = 0
        while True:
            outcomes = self.kernel.place(
                *self.roots, self.rules, self.base, actions, start, start + size, self.options(**options), self.control
            )
            self.base = self.kernel.patch(self.base, outcomes)
            start = outcomes.next
            if start >= len(actions) or outcomes.stopped:
                return outcomes

    def cycle(self, scope: Sequence[Look] | None = None, verbs: Mapping[Line, Verb] = KEEP, **options: Any) -> Outcomes:
        """Everything."""
        return self.place(self.look(scope), verbs, **options)

    # --- what came of it -----------------------------------------------------------------------------

    def lines(self, diff: Diff) -> dict[Line, list[bytes]]:
        """Paths by line, without the lines that have none."""
        found = {line: [row.path for row in diff.rows(line)] for line in Line}
        return {line: paths for line, paths in found.items() if paths}

    def quiet(self) -> bool:
        """Whether nothing is left to do or to learn, and no temporary name is left behind."""
        diff = self.look()
        left = {line: diff.count(line) for line in Line if line is not Line.SAME and diff.count(line)}
        assert not left
        self.tidy()
        return True

    def tidy(self) -> None:
        assert set(os.listdir(self.staging)) <= {"conflicts"}

    def kept(self) -> list[bytes]:
        """The contents of all files that were set aside."""
        return trees.contents(self.staging)

    def same_content(self) -> bool:
        assert trees.read(self.source) == trees.read(self.target)
        return True


def ends(outcomes: Outcomes) -> dict[bytes, Status]:
    """Every path that ended, and how."""
    return {path: status for status in Status for path in outcomes.paths(status)}


def kept_path(outcomes: Outcomes, path: bytes) -> bytes:
    """Where the entry of a path is kept, below staging."""
    found = [kept for each, kept in outcomes.aside if each == path]
    assert len(found) == 1, outcomes.aside
    assert found[0].startswith(b"conflicts/now/")
    assert parent(found[0])
    return found[0]
