"""Scan: what stands below a root, or at some places of it."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Sequence
from math import inf

from syncd.kernel.contract import Control, Look, Root, Side, Trouble
from syncd.kernel.pure.files import ABSENT, LISTING, Unreachable, directory, fingerprint, kind_of, look, opened
from syncd.kernel.pure.rules import PureRules
from syncd.kernel.pure.tree import PureBase, PureTree, in_order, join, parts
from syncd.model.entry import Entry, Kind
from syncd.model.path import ancestors, any_above, name, parent

RECENT = 5_000_000_000  # nanoseconds


def scan(
    root: Root,
    rules: PureRules,
    side: Side,
    known: PureBase,
    scope: Sequence[Look] | None,
    control: Control,
    force: bool,
) -> PureTree:
    """Read entries below `root`: see the contract."""
    walk = Walk(root, rules, side, known, control, force)
    if side is Side.SOURCE and scope is not None:
        walk.doubtful = time.time_ns() - RECENT
    if scope is None or any(deep and not path for path, deep in scope):
        walk.tree = PureTree(None)
        walk.below(b"", root.device)
    else:
        places = walk.places(scope) if side is Side.SOURCE else dict(scope)
        walk.tree = PureTree(without_repetition(places))
        for path, deep in walk.tree.scope or ():
            walk.place(path, deep)
    check_root(root)
    walk.tree.troubles = [Trouble(path, number, op, side) for path, (number, op) in walk.troubles.items()]
    walk.tree.finish()
    return walk.tree


def check_root(root: Root) -> None:
    """Raise if the root directory itself was removed: all in it looks absent then."""
    if os.fstat(root.fd).st_nlink == 0:
        raise FileNotFoundError(errno.ENOENT, "the root was removed")


def without_repetition(places: dict[bytes, bool]) -> tuple[Look, ...]:
    """The places in order, without those that a deep one takes in."""
    return tuple(
        Look(path, places[path]) for path in in_order(places) if not any(places.get(above) for above in ancestors(path))
    )


class Walk:
    """One scan under way."""

    def __init__(
        self, root: Root, rules: PureRules, side: Side, known: PureBase, control: Control, force: bool
    ) -> None:
        self.root = root
        self.rules = rules
        self.side = side
        self.known = known
        self.control = control
        self.force = force
        self.doubtful = inf  # files that changed at this time or later are in doubt
        self.covered: frozenset[bytes] = getattr(root, "covered", frozenset())
        self.tree = PureTree(None)
        self.troubles: dict[bytes, tuple[int, str]] = {}

    # --- the places of a source ------------------------------------------------------------------

    def places(self, scope: Sequence[Look]) -> dict[bytes, bool]:
        """What the given places of a source come to: path → whether it is looked at deeply."""
        found: dict[bytes, bool] = {}
        for path, deep in scope:
            for place, place_deep in self.resolve(path, deep) if path else [(b"", False)]:
                found[place] = found.get(place, False) or place_deep
        return found

    def resolve(self, path: bytes, deep: bool) -> list[tuple[bytes, bool]]:
        """One place, the directory above it, and the directories on the way that `known` lacks."""
        looked: list[tuple[bytes, bool]] = []
        reached = b""
        for step in parts(path):
            above, reached = reached, join(reached, step)
            final = reached == path
            kind = self.kind_at(above, step, reached)
            if self.is_excluded(reached, kind, final):
                return []
            if any_above(reached, self.troubles):
                return [*looked, (path, deep), (parent(path), False)]
            if not final and kind != Kind.DIR:
                return [*looked, (reached, True), (above, False)] if self.known.get(reached) else looked
            if not final and not self.knows_directory(reached):
                looked.append((reached, False))
            if final:
                looked.append((path, deep or kind != Kind.DIR or not self.knows_directory(path)))
                looked.append((above, False))
        return looked

    def kind_at(self, above: bytes, step: bytes, path: bytes) -> Kind | None:
        """What stands at a name, None if nothing. Teaches the rules on the way."""
        try:
            with directory(self.root.fd, above) as fd:
                self.names(above, fd)
                state = os.stat(step, dir_fd=fd, follow_symlinks=False)
                kind = kind_of(state.st_mode)
                if kind == Kind.DIR:
                    self.check_mount(path, state, os.fstat(fd).st_dev)
                return kind
        except OSError as error:
            self.meet(path, error)
            return None

    def is_excluded(self, path: bytes, kind: Kind | None, final: bool) -> bool:
        """Whether a place is none of ours, by what stands there or what `known` has there."""
        agreed = self.known.get(path)
        if not final:
            return self.rules.excluded_child(path, True)
        if kind is None:
            return self.rules.excluded_child(path, agreed is not None and agreed.kind == Kind.DIR)
        if not self.rules.excluded_child(path, kind == Kind.DIR):
            return False
        return agreed is None or self.rules.excluded_child(path, agreed.kind == Kind.DIR)

    def knows_directory(self, path: bytes) -> bool:
        agreed = self.known.get(path)
        return agreed is not None and agreed.kind == Kind.DIR

    # --- reading ---------------------------------------------------------------------------------

    def place(self, path: bytes, deep: bool) -> None:
        """Look at one place as it stands."""
        if self.control.cancelled:
            self.troubles.setdefault(path, (errno.ECANCELED, "scan"))
            return
        if self.is_covered(path):
            return
        try:
            with directory(self.root.fd, parent(path)) as fd:
                if not path:
                    self.put(b"", Entry(Kind.DIR, fingerprint(os.fstat(fd))))
                    return
                if self.side is Side.SOURCE:
                    self.names(parent(path), fd)
                entry, state = look(fd, name(path), self.force)
                if self.rules.excluded_child(path, entry.kind == Kind.DIR):  # `resolve` judged those above
                    return
                device = os.fstat(fd).st_dev
        except OSError as error:
            self.meet(path, error)
            self.went(path, deep)
            return
        if entry.kind != Kind.DIR:
            self.went(path, deep)
        if entry.kind == Kind.DIR and deep:
            self.below(path, device)
        elif entry.kind != Kind.DIR or self.check_mount(path, state, device):
            self.put(path, entry)

    def went(self, path: bytes, deep: bool) -> None:
        """A directory of `known` stood there when the places were resolved and is gone by now.

        What it held is not in scope, so nothing may be made of its absence; the next look takes it in.
        """
        if self.side is Side.SOURCE and not deep and self.knows_directory(path):
            self.troubles.setdefault(path, (errno.EAGAIN, "scan"))

    def below(self, top: bytes, device: int) -> None:
        """Read a directory and all below it. `device` is that of the directory above."""
        pending = [(top, device)]
        while pending:
            path, device = pending.pop()
            if self.control.cancelled:
                self.troubles.setdefault(path, (errno.ECANCELED, "scan"))
                continue
            try:
                with directory(self.root.fd, path) as fd:
                    state = os.fstat(fd)
                    if path and not self.check_mount(path, state, device):
                        continue
                    self.put(path, Entry(Kind.DIR, fingerprint(state)))
                    pending += [(child, state.st_dev) for child in self.children(path, fd)]
            except OSError as error:
                self.tree.drop(path)
                self.meet(path, error, errno.EAGAIN)

    def children(self, path: bytes, fd: int) -> list[bytes]:
        """Read the names of one directory; those that are directories are returned, last ones first."""
        directories = []
        for child_name, is_dir in self.names(path, fd).items():
            child = join(path, child_name)
            if self.rules.excluded_child(child, is_dir) or self.is_covered(child):
                continue
            if self.control.cancelled:
                self.troubles.setdefault(path, (errno.ECANCELED, "scan"))
                break
            try:
                entry, _ = look(fd, child_name, self.force)
            except OSError as error:
                self.meet(child, error)
                continue
            if (entry.kind == Kind.DIR) != is_dir:  # it just became another thing than the rules judged
                self.troubles.setdefault(child, (errno.EAGAIN, "scan"))
            elif is_dir:
                directories.append(child)
            else:
                self.put(child, entry)
        return directories

    def names(self, path: bytes, fd: int) -> dict[bytes, bool]:
        """The names of a directory with whether each is a directory. A source's teach the rules."""
        try:
            with opened(os.open(b".", LISTING, dir_fd=fd)) as listing, os.scandir(listing) as entries:
                names = {os.fsencode(entry.name): entry.is_dir(follow_symlinks=False) for entry in entries}
                if self.side is Side.SOURCE:
                    self.rules.enter(path, listing, names)
        except OSError as error:
            raise Unreachable(error, path) from None
        return names

    def check_mount(self, path: bytes, state: os.stat_result, above: int) -> bool:
        """Whether a directory is still the mount point that `known` has there, if it has one."""
        agreed = self.known.get(path)
        if self.side is Side.SOURCE and agreed and agreed.mount and state.st_dev == above:
            self.troubles.setdefault(path, (errno.ENODEV, "mount"))
            return False
        return True

    def is_covered(self, path: bytes) -> bool:
        """Whether something is mounted at or above a path, over what belongs to the root: that is trouble."""
        for place in (path, *ancestors(path)) if self.covered else ():
            if place in self.covered:
                self.troubles.setdefault(place, (errno.EBUSY, "mount"))
                return True
        return False

    def meet(self, path: bytes, error: OSError, not_directory: int = 0) -> None:
        """Absent is not unknown: only the latter is trouble. What concerns the root is neither.

        `not_directory` is the trouble if the path itself, a directory a moment ago, is another thing now.
        """
        failed = error.path if isinstance(error, Unreachable) else path
        if not failed:
            raise OSError(error.errno, error.strerror) from error
        number = error.errno or errno.EIO
        if number in (errno.ENOTDIR, errno.ELOOP) and failed == path and not_directory:
            number = not_directory
        if number not in ABSENT:
            self.troubles.setdefault(failed, (number, "scan"))

    def put(self, path: bytes, entry: Entry) -> None:
        """Take in an entry; a file that looks as `known` has it takes over its digest."""
        agreed = self.known.get(path)
        if entry.kind == Kind.FILE and agreed and agreed.kind == Kind.FILE:
            seen = agreed.source if self.side is Side.SOURCE else agreed.target
            if seen == entry.seen and entry.seen.ctime_ns < self.doubtful:
                entry = entry._replace(digest=agreed.digest)
        self.tree.put(path, entry)
        self.control.entries += bool(path)


def stat_many(root: Root, paths: Sequence[bytes], force: bool) -> list[Entry | int | None]:
    """lstat each path: an Entry without digest, None if absent, or the errno that makes it unknown."""
    found: list[Entry | int | None] = []
    for path in paths:
        try:
            with directory(root.fd, parent(path)) as fd:
                found.append(look(fd, name(path), force)[0] if path else Entry(Kind.DIR, fingerprint(os.fstat(fd))))
        except OSError as error:
            found.append(None if error.errno in ABSENT else error.errno or errno.EIO)
    return found
