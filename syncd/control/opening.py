"""From two paths to a pair that may be written: checks, lock, baseline, staging, what was left undone."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from syncd.engine.baseline import Baseline
from syncd.engine.cycle import cycle
from syncd.engine.moves import finish_move
from syncd.engine.pair import NOWHERE, Pair
from syncd.engine.staging import CONFLICTS, hold_staging, sweep
from syncd.errors import Refused, TargetBusy, UsageError
from syncd.kernel.contract import Intent, Kernel
from syncd.model.change import Batch
from syncd.model.entry import Agreed, Entry, Kind
from syncd.model.path import display, is_within
from syncd.model.report import Halt
from syncd.model.settings import Settings
from syncd.system import flocks
from syncd.system.boot import boot_id
from syncd.system.dirs import find_by_target, make_pair_dir, pair_dir, state_home
from syncd.system.identity import identity
from syncd.system.locks import Holder, TargetLock, busy, live_targets
from syncd.system.mounts import unique_mount_id
from syncd.system.savefile import UNSAVED

A_MINUTE = 60.0


@dataclass(slots=True)
class Opened:
    """A pair with what has to be let go of at the end. `notes` are for the user, once."""

    pair: Pair
    lock: TargetLock
    own: int  # the descriptor that locks `state`
    state: Path
    notes: list[str]

    def close(self, *, clean: bool = True) -> None:
        """Flush the target, mark the baseline clean, release the lock. Raises OSError of the flush."""
        pair = self.pair
        try:
            if clean:
                _flush(pair)
            pair.baseline.close(clean=clean and pair.trusted, damaged=False, run=_run(pair.settings.target))
        finally:
            pair.prepared.clear(pair.staging.fd)
            pair.staging.close()
            os.close(self.own)
            self.lock.release()


def resolve(source: bytes, target: bytes, settings: Settings, *, create: bool = True) -> Settings:
    """Check the two paths and return `settings` with their real forms. Raises UsageError or Refused.

    A missing TARGET (its last component) is made when `create`.
    """
    for name, path in ("SOURCE", source), ("TARGET", target):
        if not path:  # an unset variable of a script, not the current directory
            raise UsageError(f"{name} is empty; for the current directory write .")
    real_source, real_target = os.path.realpath(source), os.path.realpath(target)
    if not os.path.lexists(real_source):
        raise UsageError(f"SOURCE {display(source)} does not exist")
    if not os.path.isdir(real_source):
        raise UsageError(f"SOURCE {display(source)} is not a directory; syncd mirrors directories")
    if not os.access(real_source, os.R_OK | os.X_OK):
        raise UsageError(f"SOURCE {display(source)} cannot be read; give this user the right to read and enter it")
    _check_nesting(real_source, real_target, settings)
    if os.path.lexists(real_target):
        if not os.path.isdir(real_target):
            raise UsageError(f"TARGET {display(target)} is not a directory")
        if os.path.samestat(os.stat(real_source), os.stat(real_target)):
            raise UsageError("SOURCE and TARGET are the same directory")
    elif not os.path.isdir(os.path.dirname(real_target)):
        above = os.path.dirname(target) or b"."
        why = "is not a directory" if os.path.lexists(os.path.dirname(real_target)) else "does not exist"
        raise UsageError(f"{display(above)}, which would hold TARGET, {why}; only the last part of TARGET is made")
    elif create:
        try:
            os.mkdir(real_target)
        except OSError as error:
            raise UsageError(f"TARGET {display(target)} cannot be made: {error.strerror}") from None
    return settings._replace(source=real_source, target=real_target)


def _check_nesting(source: bytes, target: bytes, settings: Settings) -> None:
    if source == target:
        raise UsageError("SOURCE and TARGET are the same directory")
    if _below(source, target) is not None:
        raise UsageError(f"SOURCE {display(source)} lies inside TARGET {display(target)}: it would mirror into itself")
    inside = _below(target, source)
    if inside is not None and not any(is_within(inside, overlay) for overlay in settings.overlays):
        raise UsageError(
            f"TARGET {display(target)} lies inside SOURCE {display(source)}: "
            f"put it elsewhere, or leave it out with --overlay {display(inside)}"
        )


def _below(path: bytes, top: bytes) -> bytes | None:
    """Where in `top` the `path` lies, also by another name (bind mount); None if it does not."""
    try:
        wanted = os.stat(top)
    except OSError:
        return None
    above = path
    while above != (above := os.path.dirname(above)):
        try:
            if os.path.samestat(os.stat(above), wanted):
                return os.path.relpath(path, above)
        except OSError:
            continue
    return None


def open_pair(settings: Settings, kernel: Kernel, say: Callable[[str], None]) -> Opened:
    """Take the target and make ready. Raises TargetBusy, Refused, SyncdError; nothing is touched then.

    `settings` come from `resolve`. Intents that an interrupted run left open are settled here.
    """
    check_others(settings, live_targets())
    for known in find_by_target(settings.target):  # by one whose lock went with its runtime directory
        if known.source != settings.source and flocks.is_taken(known.state):
            raise TargetBusy(
                f"{display(settings.target)} is already written by another process, which uses {known.state}"
            )
    lock = TargetLock(settings.source, settings.target, settings.overlays).acquire()
    try:
        check_others(settings, live_targets())  # once more: others look for this one from now on
        return _open(settings, kernel, lock, say)
    except BaseException:
        lock.release()
        raise


def check_others(settings: Settings, holders: list[Holder]) -> None:
    """Refuse what would mix with what runs: targets in one another, and writes that come back into SOURCE."""
    for holder in holders:
        if holder.target == settings.target:
            if holder.source != settings.source:
                raise TargetBusy(busy(settings.target, holder))
        elif _meet(holder.target, settings.target):
            raise Refused(
                f"process {holder.pid} already mirrors into {display(holder.target)}, and one of the two targets "
                f"lies inside the other; end that one first"
            )
    reached = {settings.target}  # where what is written into TARGET gets to
    for _ in holders:
        for holder in holders:
            if holder.target in reached or not any(_reads(holder.source, holder.overlays, path) for path in reached):
                continue
            reached.add(holder.target)
            if _reads(settings.source, settings.overlays, holder.target):
                raise Refused(
                    f"process {holder.pid} already mirrors {display(holder.source)} into {display(holder.target)}: what "
                    f"is written into TARGET would come back into SOURCE, and each would take back what the other one "
                    f"brings. End that one first"
                )


def _reads(source: bytes, overlays: tuple[bytes, ...], path: bytes) -> bool:
    """Whether who mirrors `source` sees something of what is written at `path`."""
    inside = _below(path, source)
    if inside is not None:
        return not any(is_within(inside, overlay) for overlay in overlays)
    return _meet(source, path)


def _meet(one: bytes, other: bytes) -> bool:
    """Whether two directories are the same, or one lies inside the other."""
    return one == other or _below(one, other) is not None or _below(other, one) is not None


def _open(settings: Settings, kernel: Kernel, lock: TargetLock, say: Callable[[str], None]) -> Opened:
    notes = [lock.warning] if lock.warning else []
    state = make_pair_dir(settings.source, settings.target)
    own = os.open(state, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if not flocks.take_soon(own):  # by one with another runtime directory, which `lock` does not see
            raise TargetBusy(
                f"another process uses {state}, the state of this pair, with another XDG_RUNTIME_DIR. Stop that one first"
            )
        return _open_locked(settings, kernel, lock, own, state, notes, say)
    except BaseException:
        os.close(own)
        raise


def _open_locked(
    settings: Settings,
    kernel: Kernel,
    lock: TargetLock,
    own: int,
    state: Path,
    notes: list[str],
    say: Callable[[str], None],
) -> Opened:
    settings = _without_own(settings)
    for left in state.glob(f"{UNSAVED}*"):  # by a process that was killed while it wrote a state file
        if time.time() - left.lstat().st_mtime > A_MINUTE:  # no other one is at it now
            left.unlink(missing_ok=True)
    target_fd = os.open(settings.target, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        target = identity(settings.target)
        staging = hold_staging(state, Path(os.fsdecode(settings.target)), target_fd)
    finally:
        os.close(target_fd)
    baseline = None
    try:
        baseline = Baseline(kernel, state)
        check_swapped(settings, baseline)
        if baseline.notes.get("target", target) != target:
            notes.append("the target is another directory than the one mirrored before: a first meeting")
            baseline.forget()
        pair = Pair(settings, kernel, baseline, staging)
        pair.trusted = _is_trusted(baseline, settings.target)
        if not pair.trusted and len(baseline.base):
            notes.append("the last run did not end cleanly: everything is compared by content")
        if not baseline.whole:
            notes.append("the baseline was cut off or damaged: everything is compared by content")
        pair.run = _run(settings.target)
        baseline.open(pair.run if pair.trusted else None)  # else, once everything was compared
        baseline.note(target=target)
        opened = Opened(pair, lock, own, state, notes)
        _finish_intents(pair, notes)  # first: it looks at single places only, also of another source
        source = identity(settings.source)
        if baseline.notes.get("source", source) != source:
            notes.append("the source is another directory than the one mirrored before")
            pair.expect_another_source()
        if not pair.trusted and baseline.whole:
            _take_back_dropped(pair)
    except BaseException:
        if baseline is not None:
            baseline.close(clean=False)
        staging.close()
        raise
    for note in notes:
        say(note)
    return opened


def check_swapped(settings: Settings, baseline: Baseline) -> None:
    """Refuse to mirror a known mirror back into its source, unless that was done before."""
    turned = pair_dir(settings.target, settings.source)
    if not (baseline.known or settings.adopt) and any(turned.glob("baseline.*")):
        raise Refused(
            f"SOURCE {display(settings.source)} is the mirror of TARGET {display(settings.target)} until now: were they "
            "swapped? Nothing was touched; --adopt goes on"
        )


def _without_own(settings: Settings) -> Settings:
    """Leave syncd's own state out of a source that holds it (a whole home directory, say)."""
    home = os.fsencode(os.path.realpath(state_home()))
    if not is_within(home, settings.source):
        return settings
    return settings._replace(overlays=(*settings.overlays, os.path.relpath(home, settings.source)))


def _run(target: bytes) -> dict[str, object]:
    return {"boot": boot_id(), "mount": unique_mount_id(target)}


def _is_trusted(baseline: Baseline, target: bytes) -> bool:
    """Whether the target's fingerprints can be believed: the last run ended cleanly, or only it was killed."""
    if not baseline.known:
        return True
    notes = baseline.notes
    if not baseline.whole or notes.get("damaged"):
        return False
    return bool(notes.get("clean")) or notes.get("run") == _run(target)


def _flush(pair: Pair) -> None:
    """Write out the target. Raises OSError, also of a write since the pair was opened; then it is not believed."""
    from syncd.system.libc import syncfs

    try:
        syncfs(pair.staging.fd)  # open since then, so that it is told of a failure that others were told of before
    except OSError:
        pair.baseline.note(damaged=True)
        raise


def _finish_intents(pair: Pair, notes: list[str]) -> None:
    """Judge what an interrupted batch left: syncd's own is learnt, anything else is set aside."""
    kernel, baseline = pair.kernel, pair.baseline
    intents = {intent.path: intent for intent in baseline.intents}
    doubtful = []
    with pair.roots() as roots:
        if isinstance(roots, Halt):
            return  # the first cycle says why; the intents stay open in the journal
        finish_move(kernel, roots, baseline)
        paths = list(intents)
        entries = kernel.stat_many(roots[1], paths)
        files = [p for p, e in zip(paths, entries, strict=True) if isinstance(e, Entry) and e.kind is Kind.FILE]
        digests = dict(zip(files, kernel.hash_many(roots[1], files, pair.control), strict=True))
        rows: list[tuple[bytes, Agreed | None]] = []
        for path, entry in zip(paths, entries, strict=True):
            known = baseline.base.get(path)
            if entry is None:
                if known is not None and intents[path].kind == 0:
                    rows.append((path, None))
            elif isinstance(entry, Entry) and (row := _own(entry, digests.get(path), intents[path], known)):
                rows.append((path, row))
            else:
                doubtful.append(path)
                rows.append((path, None))
        own = {intent.digest for intent in intents.values() if intent.digest}
        own |= {known.digest for path in paths if (known := baseline.base.get(path)) and known.digest}
        saved = sweep(
            pair.staging,
            lambda fd, name: _digest_at(kernel, pair, fd, name) in own,
            pair.staging.aside(0, time.time()) + b"-unfinished",
        )
        if rows:
            baseline.settle(rows)
    baseline.intents = []
    if doubtful:
        done = cycle(pair, Batch(frozenset(doubtful)), policy="mirror", unfinished=True)
        saved += [kept.encode() for _, kept in done.aside]
    if saved:
        notes.append(f"{len(saved)} unfinished entries of an interrupted run were set aside under {CONFLICTS}")


def _take_back_dropped(pair: Pair) -> None:
    """After an unclean boot or mount: a removal that the disk has forgotten is done again.

    What stands there as the baseline once had it, its time included, is syncd's own and gets its row back, so
    that the table removes it once more. Anything else is a container's.
    """
    with pair.roots() as roots:
        if isinstance(roots, Halt):
            return
        dropped = pair.baseline.dropped()
        paths = sorted({path for path, _ in dropped})
        there = dict(zip(paths, pair.kernel.stat_many(roots[1], paths), strict=True))
        rows: list[tuple[bytes, Agreed | None]] = []
        for path, row in dropped:
            entry = there[path]
            if not isinstance(entry, Entry) or entry.kind != row.kind:
                continue
            same_file = (entry.seen.size, entry.seen.mtime_ns) == (row.target.size, row.mtime_ns)
            if entry.kind == Kind.DIR or (entry.link == row.link and (entry.kind == Kind.LINK or same_file)):
                rows.append((path, row._replace(source=NOWHERE, target=NOWHERE)))
        if rows:
            pair.baseline.settle(rows)
            pair.vouch(frozenset(path for path, _ in rows))


def _own(entry: Entry, digest: bytes | int | None, intent: Intent, known: Agreed | None) -> Agreed | None:
    """The row that says what stands there, if it is what the intent or the baseline says."""
    content = digest if isinstance(digest, bytes) else None
    for kind, want_digest, want_link in (
        (intent.kind, intent.digest, intent.link),
        (known.kind, known.digest, known.link) if known else (0, None, None),
    ):
        if entry.kind == kind and (
            kind == Kind.DIR
            or (kind == Kind.FILE and content is not None and content == want_digest)
            or (kind == Kind.LINK and entry.link == want_link)
        ):
            seen = entry.seen
            # A directory that stood there before: its time vouches for what is still to be removed from it.
            source = known.source if known is not None and kind == known.kind == Kind.DIR else NOWHERE
            return Agreed(entry.kind, seen.mode & 0o1777, seen.mtime_ns, content, entry.link, source, seen)
    return None


def _digest_at(kernel: Kernel, pair: Pair, fd: int, name: str) -> bytes | int:
    root = kernel.open_root(os.fsencode(f"/proc/self/fd/{fd}"))
    try:
        return kernel.hash_many(root, [os.fsencode(name)], pair.control)[0]
    finally:
        root.close()
