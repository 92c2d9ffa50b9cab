"""The kernel in plain Python: the specification, and what runs without a compiler."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack, closing
from typing import cast

from syncd.kernel.contract import (
    Actions,
    Base,
    Control,
    Loaded,
    Look,
    Outcomes,
    PlaceOptions,
    Root,
    Rules,
    RuleSource,
    Side,
    Tree,
)
from syncd.kernel.pure import journal as journals
from syncd.kernel.pure.call import PureOutcomes
from syncd.kernel.pure.control import PureControl
from syncd.kernel.pure.diff import PureActions, PureDiff
from syncd.kernel.pure.digest import digest, hash_many
from syncd.kernel.pure.place import MOST, place
from syncd.kernel.pure.rules import PureRules
from syncd.kernel.pure.scan import scan, stat_many
from syncd.kernel.pure.tree import PureBase, PureTree
from syncd.model.change import CALM, Line
from syncd.model.entry import Agreed, Entry
from syncd.model.plan import Verb
from syncd.system import libc


class PureRoot:
    """A directory opened as one side."""

    def __init__(self, path: bytes, covered: Collection[bytes] = ()) -> None:
        self.covered = frozenset(covered)
        self.fd = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        state = os.fstat(self.fd)
        self.device = state.st_dev
        self.inode = state.st_ino

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


class Unprepared:
    """What this body prepares: nothing."""

    def __len__(self) -> int:
        return 0

    def clear(self, staging: int) -> None:
        """There is nothing."""


class PureKernel:
    """The primitives: see `contract.Kernel`."""

    name = "pure"

    def __init__(self) -> None:
        libc.ignore_sigio()

    def control(self) -> PureControl:
        return PureControl()

    def open_root(self, path: bytes, covered: Collection[bytes] = ()) -> PureRoot:
        return PureRoot(path, covered)

    def compile_rules(
        self,
        first: Sequence[RuleSource],
        nested: Sequence[bytes],
        last: Sequence[RuleSource],
        overlays: Collection[bytes],
    ) -> PureRules:
        return PureRules(first, nested, last, overlays)

    def scan(
        self,
        root: Root,
        rules: Rules,
        side: Side,
        known: Base,
        scope: Sequence[Look] | Tree | None,
        control: Control,
        force: bool = False,
    ) -> PureTree:
        assert isinstance(rules, PureRules)
        assert isinstance(known, PureBase)
        looks = scope.scope if isinstance(scope, PureTree) else cast("Sequence[Look] | None", scope)
        return scan(root, rules, side, known, looks, control, force)

    def digest(
        self,
        base: Base,
        source: Tree,
        target: Tree,
        roots: tuple[Root, Root],
        control: Control,
        exact: bool = False,
    ) -> tuple[PureTree, PureTree]:
        assert isinstance(base, PureBase)
        assert isinstance(source, PureTree)
        assert isinstance(target, PureTree)
        return digest(base, source, target, roots, control, exact)

    def diff(
        self, base: Base, source: Tree, target: Tree, removed: Collection[bytes] = (), explained: bool = False
    ) -> PureDiff:
        assert isinstance(base, PureBase)
        assert isinstance(source, PureTree)
        assert isinstance(target, PureTree)
        return PureDiff(base, source, target, removed, explained)

    def patch(self, base: Base, outcomes: Outcomes) -> PureBase:
        assert isinstance(base, PureBase)
        assert isinstance(outcomes, PureOutcomes)
        base.learn(outcomes.rows())
        return base

    def settle(self, base: Base, rows: Sequence[tuple[bytes, Agreed | None]], journal: int) -> PureBase:
        assert isinstance(base, PureBase)
        journals.append(journal, journals.outcomes_frame(rows))
        base.learn(rows)
        return base

    def place(
        self,
        source: Root,
        target: Root,
        rules: Rules,
        base: Base,
        actions: Actions,
        start: int,
        stop: int,
        options: PlaceOptions,
        control: Control,
    ) -> PureOutcomes:
        assert isinstance(rules, PureRules)
        assert isinstance(base, PureBase)
        assert isinstance(actions, PureActions)
        return place(source, target, rules, base, actions, start, stop, options, control)

    def prepared(self) -> Unprepared:
        return Unprepared()

    def prepare(
        self, roots: tuple[Root, Root], base: Base, paths: Collection[bytes], options: PlaceOptions, control: Control
    ) -> None:
        """Passes over all of them: with the interpreter's lock, reading ahead would take its time from the watcher."""

    def express(
        self,
        paths: tuple[bytes, bytes],
        roots: tuple[tuple[int, int], tuple[int, int]],
        rules: Rules,
        base: Base,
        looked: Collection[bytes],
        deep: Collection[bytes],
        verbs: Mapping[Line, Verb],
        options: PlaceOptions,
        control: Control,
    ) -> PureOutcomes | None:
        scope = [Look(path, path in deep) for path in looked]
        with ExitStack() as opened:
            try:
                source, target = (opened.enter_context(closing(self.open_root(path))) for path in paths)
                if ((source.device, source.inode), (target.device, target.inode)) != roots:
                    return None
                ours = self.scan(source, rules, Side.SOURCE, base, scope, control)
                theirs = self.scan(target, rules, Side.TARGET, base, ours, control)
            except OSError:
                return None
            ours, theirs = self.digest(base, ours, theirs, (source, target), control)
            diff = self.diff(base, ours, theirs)
            told = ours.troubles or ours.others or theirs.troubles or theirs.others
            root, known = ours.get(b""), base.get(b"")
            if root is not None and (known is None or known.source != root.seen):
                return None
            if told or ours.scope is None or any(diff.count(line) for line in Line if line not in CALM):
                return None
            actions = diff.actions({line: verbs[line] for line in CALM[1:]})
            if len(actions) > MOST:
                return None
            return self.place(source, target, rules, base, actions, 0, MOST, options, control)

    def stat_many(self, root: Root, paths: Sequence[bytes], force: bool = False) -> list[Entry | int | None]:
        return stat_many(root, paths, force)

    def hash_many(self, root: Root, paths: Sequence[bytes], control: Control) -> list[bytes | int]:
        return hash_many(root, paths, control)

    def empty_base(self) -> PureBase:
        return PureBase()

    def save_tree(self, base: Base, notes: Sequence[bytes], fd: int) -> None:
        assert isinstance(base, PureBase)
        journals.save_tree(base, notes, fd)

    def load_tree(self, fds: Sequence[int]) -> Loaded:
        return journals.load_tree(fds)

    def former(self, fds: Sequence[int], base: Base) -> list[tuple[bytes, Agreed]]:
        return journals.former(fds, base)

    def note(self, journal: int, note: bytes) -> None:
        journals.append(journal, journals.frame(b"N", note))
