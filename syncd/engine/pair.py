"""What one pair remembers between cycles, and the questions of a cycle that need that memory."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from types import MappingProxyType, TracebackType
from typing import Any

from syncd.engine.baseline import Baseline
from syncd.engine.covered import covered
from syncd.engine.guard import Guard
from syncd.engine.ignore import compile_rules
from syncd.engine.scan import Sight
from syncd.engine.staging import ASIDE, Staging
from syncd.engine.vcs import control_directories
from syncd.errors import FirstMeeting
from syncd.kernel.contract import Diff, Kernel, Outcomes, PlaceOptions, Root, Tree
from syncd.model.change import Batch, Line
from syncd.model.entry import Agreed, Entry, Fingerprint, Kind
from syncd.model.path import any_above, display, is_within
from syncd.model.plan import Plan, Verb
from syncd.model.report import CycleReport, Halt
from syncd.model.settings import Settings
from syncd.system import mounts
from syncd.system.identity import birth, identity
from syncd.watchers.base import Lone

SECOND_LOOK = 1.0  # seconds after which an absence on a lying filesystem is believed
EXAMPLES = 10
NOWHERE = Fingerprint(0, 0, 0, 0, 0)  # equal to no entry: the content decides
UNSEEN = ("scan", "read", "mount")  # problems of places whose content was not compared
LONE_CYCLES = 16  # of which each journals a few hundred bytes; after so many the journal's size is looked at

Roots = tuple[Root, Root]


class Pair:
    """One source and its target. Used by one thread; `control` may be touched by any."""

    def __init__(self, settings: Settings, kernel: Kernel, baseline: Baseline, staging: Staging) -> None:
        self.settings = settings
        self.kernel = kernel
        self.baseline = baseline
        self.staging = staging
        self.rules = compile_rules(kernel, settings)
        self.guard = Guard(settings.guard)
        self.control = kernel.control()
        self.prepared = kernel.prepared()
        self.number = 0
        self.trusted = True  # whether fingerprints of the target are believed
        self.run: dict[str, object] = {}  # where this run stands (boot and mount); noted when they are believed
        self.calm = False  # a cycle may go without the guards' memory: no doubt, and the first full cycle has ended
        self.foreign = False  # the source root was made anew, or on another filesystem: its times vouch for no removal
        self.emptied = False  # it was found empty: its own time, when it fills again, vouches for no removal either
        self._moved = False  # it is another inode than the one first seen
        self._another = False  # it is another one than in the last run
        self._births: list[tuple[int, int]] = []  # of both roots
        self.covered: frozenset[bytes] = frozenset()  # what is mounted over parts of the target
        self.lying = False  # events of the source, or of a mount below it, may be missing, and an absence be a mistake
        self._seen: list[tuple[int, int] | None] = [None, None]
        self._identity: list[int] | None = None  # of the source, as far as it is noted
        self.hear: Callable[[], frozenset[bytes]] = frozenset  # removals that were told and not taken yet
        self._absent: dict[bytes, float] = {}  # not there on a filesystem that may lie -> when that was first seen
        self._believed: frozenset[bytes] = frozenset()  # those of them that were seen twice and are not removed yet
        self._vouched: set[bytes] = set()  # those of them whose removal was explained at the first look
        self._look_at_mounts()
        self._shared: list[bytes] = []  # paths of the baseline that say so themselves, when `_names` was made
        self._names: list[bytes] = []

    def next_cycle(self) -> int:
        """Count a cycle."""
        self.number += 1
        return self.number

    def recompile(self) -> None:
        """Read the rules and the mounts anew: something changed. The next cycle must be full."""
        self.rules = compile_rules(self.kernel, self.settings)
        self._look_at_mounts()

    def _look_at_mounts(self) -> None:
        try:
            places = mounts.unheard(self.settings.source).items()
            self.covered = covered(self.settings.target, self.baseline.base, self.rules)
        except OSError:
            return  # no descriptor is left: what was known holds
        self.calm = self.calm and not self.covered
        self.lying = any(place.lies and not self.rules.excluded(path, True) for path, place in places)
        if not self.lying:
            self._absent, self._believed = {}, frozenset()

    def is_covered_anew(self) -> bool:
        """Whether something was mounted over a part of the target that was not so far. Raises OSError."""
        now = covered(self.settings.target, self.baseline.base, self.rules)
        if now <= self.covered:
            return False
        self.covered, self.calm = now, False
        return True

    def roots(self) -> Opening:
        """Both roots, for a `with`: opened anew and compared with what this run first saw; else why not.

        Closed afterwards: between cycles no descriptor blocks the user's umount.
        """
        return Opening(self)

    def compare(self, roots: Roots) -> Halt | None:
        """Whether these are the roots that this run first saw."""
        source, target = ((root.device, root.inode) for root in roots)
        if self._seen[0] is None:
            self._seen = [source, target]
        if target != self._seen[1]:
            return Halt("the target is another directory than before; start syncd anew if that is meant")
        self._moved = source != self._seen[0]
        return None

    @property
    def replaced(self) -> bool:
        """Whether the source root is another directory than the one first seen, or than that of the last run."""
        return self._moved or self.foreign or self._another

    @property
    def has_lost_target(self) -> bool:
        """Whether what stands at the target's path is not what was mirrored into: no event tells of that."""
        try:
            about = os.stat(self.settings.target)
        except OSError:
            return True
        return self._seen[1] not in (None, (about.st_dev, about.st_ino))

    def recognise(self, roots: Roots | Halt) -> Roots | Halt:
        """Tell them also from roots of other filesystems at the same device and inode. Raises OSError."""
        if isinstance(roots, Halt):
            return roots
        births = [birth(root.fd) for root in roots]
        self._births = self._births or births
        if births[1] != self._births[1]:
            return Halt("the target is on another filesystem than before; start syncd anew if that is meant")
        self.foreign = births[0] != self._births[0] or self._another
        return roots

    def expect_another_source(self) -> None:
        """The source root is another directory than in the last run: its times vouch for nothing. Raises OSError."""
        self._another = True
        if row := self.baseline.base.get(b""):
            self.baseline.settle([(b"", row._replace(source=NOWHERE))])

    def moved(self, roots: Roots) -> Halt | None:
        """A last look before anything is removed: do both paths still lead to these roots?"""
        for path, root, name in zip(
            (self.settings.source, self.settings.target), roots, ("source", "target"), strict=True
        ):
            try:
                about = os.stat(path)
            except OSError as error:
                return Halt(f"the {name} went away: {error.strerror}")
            if (about.st_dev, about.st_ino) != (root.device, root.inode):
                return Halt(f"the {name} was replaced while it was looked at")
        return None

    def diff(self, sight: Sight, roots: Roots, batch: Batch) -> Diff:
        """Compare; ask what vouches for removals only where something has to."""
        base = self.baseline.base
        removed = batch.removed | self._vouched
        diff = self.kernel.diff(base, sight.source, sight.target, removed)
        if diff.unexplained and (told := self.hear() - removed):  # removed while this cycle looked
            removed |= told
            diff = self.kernel.diff(base, sight.source, sight.target, removed)
        if diff.unexplained and not self.replaced and self._vcs_state(roots) != self.baseline.notes.get("vcs"):
            diff = self.kernel.diff(base, sight.source, sight.target, removed, True)
        return diff

    def meet(self, diff: Diff) -> None:
        """Stop a first meeting that would set aside what nobody mirrored. Raises FirstMeeting."""
        if self.baseline.notes.get("met"):
            return
        count = diff.count(Line.CONFLICT)
        if count and not self.settings.adopt:
            shown = ", ".join(display(row.path) for row in diff.rows(Line.CONFLICT, 0, EXAMPLES))
            raise FirstMeeting(
                f"{display(self.settings.target)} was never mirrored from {display(self.settings.source)} and "
                f"{count} of its entries differ from the source's: {shown}{' …' if count > EXAMPLES else ''}\n"
                "nothing was touched; --adopt sets them aside and goes on"
            )
        self.baseline.note(met=True)

    def second_look(self, diff: Diff, plan: Plan, source: Tree, now: float) -> Plan:
        """On a filesystem that may lie, believe an absence only when it is seen again a second later.

        `source` is what this cycle saw: absences elsewhere go on waiting. `now` is monotonic.
        """
        if not self.lying:
            return plan
        before = self._absent
        gone = [row.path for row in diff.rows(Line.GONE)]
        newest = max((before.get(path, now) for path in gone), default=now)
        believed = now >= newest + SECOND_LOOK
        self._absent = dict.fromkeys(gone, newest)  # one line of the table has one verb: they wait together
        self._believed = frozenset(gone) if believed else frozenset()
        if not believed and not diff.unexplained:
            self._vouched.update(gone)  # the next look learns the directory's new time, which was the explanation
        if (scope := source.scope) is not None:
            places, deep = {look.path for look in scope}, {look.path for look in scope if look.deep}
            elsewhere = [path for path in before if path not in places and not any_above(path, deep)]
            self._absent |= {path: before[path] for path in elsewhere}
        self._vouched &= self._absent.keys() | set(gone)
        if believed or not gone:
            return plan
        verbs = MappingProxyType({**plan.verbs, Line.GONE: Verb.LEAVE})
        return plan._replace(verbs=verbs, removals=0, unexplained=0, id="")  # an approval waits for the second look

    def vouch(self, paths: frozenset[bytes]) -> None:
        """These are known to have been removed from the source, until a cycle has ended."""
        self._vouched |= paths
        self.calm = False

    @property
    def doubted(self) -> list[bytes]:
        """Absences that want a second look."""
        return [path for path in self._absent if path not in self._believed]

    def overdue(self, now: float) -> frozenset[bytes]:
        """Those whose second look is due at the monotonic time `now`."""
        return frozenset(path for path in self.doubted if now >= self._absent[path] + SECOND_LOOK)

    @property
    def second_look_due(self) -> float | None:
        """When that look is due (monotonic)."""
        first = min((self._absent[path] for path in self.doubted), default=None)
        return first + SECOND_LOOK if first is not None else None

    @property
    def links_changed(self) -> bool:
        """Whether files with further hard links came or went since `recheck`."""
        return self.baseline.base.shared() != self._shared

    def lacking(self, paths: list[bytes]) -> frozenset[bytes]:
        """Those of some paths where the source has nothing. Blocks on the disk."""
        with self.roots() as roots:
            if isinstance(roots, Halt):
                return frozenset()
            states = self.kernel.stat_many(roots[0], paths)
        return frozenset(path for path, state in zip(paths, states, strict=True) if state is None)

    def _linked(self) -> list[bytes]:
        """Files with further hard links, and those that got one after they were last looked at.

        A link gives no word on the other names of its file; their rows know it by its inode only.
        """
        base = self.baseline.base
        if self.links_changed:
            self._shared = base.shared()
            inodes = {row.source.inode for path in self._shared if (row := base.get(path))}
            self._names = [
                path for path, row in base.rows() if inodes and row.kind == Kind.FILE and row.source.inode in inodes
            ]
        return self._names

    def recheck(self, busy: list[bytes]) -> frozenset[bytes]:
        """Files that may have changed without a word: `busy` ones, and those with further hard links.

        Those whose content is not the baseline's are put in doubt, so that the next cycle reads them.
        """
        paths = sorted({*busy, *self._linked()})
        if not paths:
            return frozenset()
        with self.roots() as roots:
            if isinstance(roots, Halt):
                return frozenset()
            digests = self.kernel.hash_many(roots[0], paths, self.control)
            states = self.kernel.stat_many(roots[0], paths)
        other: set[bytes] = set()
        rows: list[tuple[bytes, Agreed | None]] = []
        for path, digest, state in zip(paths, digests, states, strict=True):
            known = self.baseline.base.get(path)
            if isinstance(state, Entry) and known is not None and state.seen != known.source:
                other.add(path)  # its mode or time, say, by another of its names
            if known is None or known.digest != digest:
                other.add(path)
                if known is not None:
                    rows.append((path, known._replace(source=NOWHERE)))
        if rows:
            self.baseline.settle(rows)
        return frozenset(other)

    def options(self, number: int, *, direct: bool, unfinished: bool, patient: bool) -> PlaceOptions:
        """How this cycle writes."""
        aside = self.staging.aside(number, time.time()) + (b"-unfinished" if unfinished else b"")
        return PlaceOptions(
            self.staging.fd,
            self.baseline.journal,
            aside,
            self.settings.write,
            direct,
            self.settings.owner,
            patient,
            self.prepared if len(self.prepared) else None,
        )

    def prepare(self, paths: frozenset[bytes]) -> None:
        """Make ready what a held burst will put. Nothing is promised, and nothing in the target is touched."""
        with self.roots() as roots:
            if self.calm and not isinstance(roots, Halt):
                options = self.options(0, direct=False, unfinished=False, patient=False)
                options = options._replace(prepared=self.prepared)
                self.kernel.prepare(roots, self.baseline.base, paths, options, self.control)

    def express(self, batch: Batch, verbs: Mapping[Line, Verb], options: PlaceOptions) -> Outcomes | None:
        """See the kernel's `express`. Only while `calm`. Raises OSError when the journal cannot be written."""
        settings, (source, target) = self.settings, self._seen
        if source is None or target is None:
            return None
        return self.kernel.express(
            (settings.source, settings.target), (source, target), self.rules, self.baseline.base,
            batch.paths, batch.deep, verbs, options, self.control,
        )  # fmt: skip

    def lone(self, verbs: Mapping[Line, Verb], recent: list[float], due: float) -> Lone | None:
        """What a watcher needs to mirror lone saves; see there. None while not `calm`."""
        settings, (source, target) = self.settings, self._seen
        if not self.calm or source is None or target is None:
            return None
        options = self.options(0, direct=False, unfinished=False, patient=False)._replace(aside=ASIDE.encode())
        return Lone(
            (settings.source, settings.target), (source, target), self.rules, verbs, options, self.control,
            self.number + 1, settings.timing.few, settings.timing.quiet, recent, due,
        )  # fmt: skip

    def learn_root(self, seen: Entry | None) -> None:
        """Remember the source root's own times (None: not looked at): they vouch for removals in it. Raises OSError.

        To be called when nothing of the cycle was left undone: what is removed later would count as explained.
        """
        row = self.baseline.base.get(b"")
        if seen is not None and (row is None or row.source != seen.seen):
            agreed = Agreed(Kind.DIR, seen.seen.mode & 0o7777, seen.seen.mtime_ns, None, None, seen.seen, NOWHERE)
            self.baseline.settle([(b"", agreed)])

    def finished(self, done: CycleReport, roots: Roots, batch: Batch) -> None:
        """Remember what the next cycle and the next run need to know. Raises OSError."""
        if self._vouched and not self.lying:
            self._vouched.clear()
        for path in self._believed:
            del self._absent[path]
        self._believed = frozenset()
        if batch.everything or len(batch.paths) > self.settings.timing.few or batch.removed:
            state = self._vcs_state(roots)
            if state != self.baseline.notes.get("vcs"):
                self.baseline.note(vcs=state)
        if done.full and not (self.trusted or done.stopped or self.control.cancelled):
            self._doubt([problem.path for problem in done.problems if problem.op in UNSEEN])
            self.baseline.note(run=self.run)
            self.trusted = True
        if self.replaced and not self.doubted:  # a doubted absence is still to be judged by it
            self._seen[0] = (roots[0].device, roots[0].inode)
            self._births[0] = birth(roots[0].fd)
            self._moved = self.foreign = self._another = False
        self.emptied = False
        if batch.everything and not self.doubted and (source := identity(self.settings.source)) != self._identity:
            self.baseline.note(source=source)
            self._identity = source
        self.calm = (
            not (self.lying or self.covered)
            and self.trusted
            and bool(self.baseline.notes.get("met"))
            and len(self.baseline.base) > 0
        )
        self.baseline.checkpoint_if_due()

    def _doubt(self, places: list[bytes]) -> None:
        """Believe no fingerprint of the target at and below these: they could not be compared. Raises OSError."""
        rows: list[tuple[bytes, Agreed | None]] = [
            (path, row._replace(target=NOWHERE))
            for path, row in (self.baseline.base.rows() if places else ())
            if row.kind == Kind.FILE and any(is_within(path, place) for place in places)
        ]
        if rows:
            self.baseline.settle(rows)

    def finished_lone(self, cycles: int) -> None:
        """The same after so many lone saves, of which the baseline has learnt."""
        if self.number % LONE_CYCLES < cycles:
            self.baseline.checkpoint_if_due()

    def _vcs_state(self, roots: Roots) -> list[Any]:
        places = control_directories(roots[0], self.settings.source)
        states = self.kernel.stat_many(roots[0], [place.state_path for place in places])
        return [list(state.seen) if isinstance(state, Entry) else None for state in states]


class Opening:
    """The body of `Pair.roots`."""

    __slots__ = ("_opened", "_pair")

    def __init__(self, pair: Pair) -> None:
        self._pair = pair
        self._opened: list[Root] = []

    def __enter__(self) -> Roots | Halt:
        settings, opened = self._pair.settings, self._opened
        try:
            opened.append(self._pair.kernel.open_root(settings.source))
            opened.append(self._pair.kernel.open_root(settings.target, self._pair.covered))
        except OSError as error:
            name, path = ("target", settings.target) if opened else ("source", settings.source)
            return Halt(f"the {name} {display(path)} cannot be opened: {error.strerror}")
        roots = opened[0], opened[1]
        return self._pair.compare(roots) or roots

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for root in self._opened:
            root.close()
