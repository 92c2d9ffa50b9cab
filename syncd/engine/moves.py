"""A directory or a large file that was renamed in the source is renamed in the target instead of copied.

Only a saving: done before the scan, it lets the table find everything in place. A wrong guess costs a copy,
never a file. Where anything is in doubt nothing is done here.

    before the rename   a note {"move": [old, new]} (hex) in the journal
    the rename          RENAME_NOREPLACE, both parents reached by descriptor
    after it            the rows of the baseline under their new names, then the note is taken back

A run that was killed in between finds the note and looks which of the two names is there.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from syncd.engine.baseline import Baseline
from syncd.kernel.contract import Base, Control, Kernel, Look, Root, Rules, Side
from syncd.model.entry import Agreed, Entry, Kind
from syncd.model.path import name, parent
from syncd.system.libc import rename_new

LARGE = 1 << 20  # bytes; a smaller file is copied sooner than it is judged

Roots = tuple[Root, Root]
Move = tuple[bytes, bytes]


def candidates(base: Base, moves: Sequence[Move]) -> list[Move]:
    """The pairs that may be moves; the rest are saves by rename, or too small to matter."""
    news = {new for _, new in moves}
    found = []
    for old, new in moves:
        row = base.get(old)
        if row is None or base.get(new) is not None or old in news:
            continue
        if row.kind is Kind.DIR or (row.kind is Kind.FILE and row.source.size >= LARGE):
            found.append((old, new))
    return found


def rename_moved(
    kernel: Kernel, roots: Roots, rules: Rules, baseline: Baseline, moves: Sequence[Move], control: Control
) -> list[Move]:
    """Rename in the target what was renamed in the source; return what was. Blocks on the disk.

    Raises OSError only when the journal cannot be written; then the target is untouched.
    """
    done = []
    for old, new in candidates(baseline.base, moves):
        if _is_plain(kernel, roots, rules, baseline.base, old, new, control):
            baseline.note(move=[old.hex(), new.hex()])
            if _rename(roots[1], old, new):
                _learn(kernel, roots, baseline, old, new)
                done.append((old, new))
            baseline.note(move=None)
    return done


def finish_move(kernel: Kernel, roots: Roots, baseline: Baseline) -> None:
    """What a killed run may have left between the rename and its rows."""
    noted = baseline.notes.get("move")
    if not noted:
        return
    old, new = (bytes.fromhex(text) for text in noted)
    there = kernel.stat_many(roots[1], [old, new])
    row = baseline.base.get(old)
    if row is not None and there[0] is None and isinstance(there[1], Entry) and there[1].kind is row.kind:
        _learn(kernel, roots, baseline, old, new)
    baseline.note(move=None)


def _is_plain(kernel: Kernel, roots: Roots, rules: Rules, base: Base, old: bytes, new: bytes, control: Control) -> bool:
    """Whether the source's entry is the one that was at `old`, and the target's is all the baseline's own."""
    row = base.get(old)
    if row is None or rules.excluded(new, row.kind is Kind.DIR):
        return False
    gone, moved = kernel.stat_many(roots[0], [old, new])
    if gone is not None or not isinstance(moved, Entry):
        return False
    if moved.kind is not row.kind or moved.seen.inode != row.source.inode:
        return False
    if row.kind is Kind.FILE:
        if (moved.seen.size, moved.seen.mtime_ns) != (row.source.size, row.source.mtime_ns):
            return False
        if kernel.hash_many(roots[0], [new], control)[0] != row.digest:
            return False
    here, taken = kernel.stat_many(roots[1], [old, new])
    if taken is not None or not isinstance(here, Entry) or here.kind is not row.kind:
        return False
    if row.kind is Kind.FILE:
        return here.seen == row.target
    return _holds_only_ours(kernel, roots[1], base, old, control)


def _holds_only_ours(kernel: Kernel, target: Root, base: Base, path: bytes, control: Control) -> bool:
    """Whether a directory of the target holds every entry of the baseline unchanged, and nothing else at all."""
    everything = kernel.compile_rules((), (), (), ())
    tree = kernel.scan(target, everything, Side.TARGET, base, [Look(path, True)], control)
    if tree.troubles:
        return False
    theirs = dict(tree.rows(path))
    ours = dict(base.rows(path))
    return theirs.keys() == ours.keys() and all(
        entry.kind is ours[at].kind and (entry.kind is Kind.DIR or entry.seen == ours[at].target)
        for at, entry in theirs.items()
    )


def _rename(target: Root, old: bytes, new: bytes) -> bool:
    try:
        with _directory(target, parent(old)) as old_fd, _directory(target, parent(new)) as new_fd:
            rename_new(old_fd, name(old), new_fd, name(new))
    except OSError:
        return False  # its new directory is not there yet, another mount, a name taken meanwhile: copy it
    return True


@contextmanager
def _directory(root: Root, path: bytes) -> Iterator[int]:
    flags = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(b".", flags, dir_fd=root.fd)
    try:
        for part in path.split(b"/") if path else ():
            below = os.open(part, flags, dir_fd=fd)
            os.close(fd)
            fd = below
        yield fd
    finally:
        os.close(fd)


def _learn(kernel: Kernel, roots: Roots, baseline: Baseline, old: bytes, new: bytes) -> None:
    """Give the rows their new names. The renamed entry itself has another ctime now."""
    row = baseline.base.get(old)
    moved, here = (kernel.stat_many(root, [new])[0] for root in roots)
    if row is None:
        return
    if isinstance(here, Entry):
        row = row._replace(target=here.seen)
    if isinstance(moved, Entry):
        row = row._replace(source=moved.seen._replace(mtime_ns=row.source.mtime_ns))
    rows: list[tuple[bytes, Agreed | None]] = [(old, None), (new, row)]
    rows += [(new + path[len(old) :], below) for path, below in baseline.base.rows(old)]
    baseline.settle(rows)
