"""The kernel: primitives on many files, which decide nothing.

Two bodies keep this contract: `kernel/pure/` (plain Python, the specification) and
`native/` (Rust). One suite, `tests/conformance/`, runs on both; the file formats are shared,
so a baseline written by one body is read by the other.

What holds for all of it
    * Names and paths are `bytes` as in `model.path`, sorted bytewise, component by component
      (a directory comes directly before what it holds). Times are integer nanoseconds, cut to
      what 64 bits hold.
    * Both roots are reached by descriptor. Below a root no link is ever followed, whoever
      races (`openat2` with BENEATH, NO_SYMLINKS and NO_MAGICLINKS, else one component at a
      time with O_NOFOLLOW). A file is opened with O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC and must
      prove to be regular before it is read; a FIFO is never opened for reading at all.
      Paths longer than PATH_MAX work.
    * Absent is not unknown. ENOENT, ENOTDIR and ELOOP (a link where a directory should be) below an
      open root mean absent. Every other error makes the entry and all below it *unknown*; so does a
      cancel before it was looked at (ECANCELED), and a directory that became another thing (EAGAIN).
    * Trouble at a path is data (`Trouble`), never an exception. OSError is raised only for
      what concerns a root or a state file as a whole; then nothing was touched.
    * A call may block on the disk. It looks at `control.cancelled` between files and every
      8 MiB, and returns what it has so far. The native body holds no interpreter lock.
    * Handles (`Root`, `Rules`, `Tree`, `Diff`, `Actions`, `Outcomes`) belong to the kernel that made them, are
      used by one thread at a time (`Control` and `Rules` by any), and are not compared or hashed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from enum import IntEnum, StrEnum
from typing import NamedTuple, Protocol, TypeAlias

from syncd.model.change import Line, Row
from syncd.model.entry import Agreed, Entry
from syncd.model.plan import Verb

Raw: TypeAlias = bytes  # for classes in whose bodies the name `bytes` is an attribute's


class Side(IntEnum):
    """Which fingerprint of the baseline a scan compares with."""

    SOURCE = 0
    TARGET = 1


class Status(StrEnum):
    """How one action ended. What it does to the baseline stands in brackets."""

    DONE = "done"  # as planned (row set, or dropped after a removal)
    SAME = "same"  # RECORD, or a put whose content was equal after all: at most mode and mtime were written (row set)
    KEPT = "kept"  # a directory to be removed still holds something: it stays (row dropped)
    CHANGED = "changed"  # the target is not what the plan believed: untouched (no change)
    VANISHED = "vanished"  # the source entry is gone or of another kind by now (no change)
    BUSY = "busy"  # somebody writes the source file (no change)
    FAILED = "failed"  # see the trouble (no change)


class Trouble(NamedTuple):
    """Trouble at one path: `op` is the failed step ("read", "write", "scan", ...), `side` whose."""

    path: bytes
    errno: int
    op: str
    side: Side


class Look(NamedTuple):
    """One place to look at. `deep` takes in everything below."""

    path: bytes
    deep: bool


class RuleSource(NamedTuple):
    """Rules from one place: `name` is shown by `explain`, `text` is in `.gitignore` grammar.

    All of them are relative to the root.
    """

    name: str
    text: bytes


class Verdict(NamedTuple):
    """Why a path is ignored or not: the last rule that matched it or a directory above it.

    `path` is what the rule matched (the path, or the ignored directory above it).
    """

    ignored: bool
    path: bytes
    source: str
    line: int
    pattern: bytes


class Control(Protocol):
    """Shared between a running call and the thread that watches it. All attributes are live."""

    cancelled: bool  # set to True by anybody to stop the call
    entries: int  # entries seen or done so far, over all calls
    bytes: int  # bytes read or copied so far, over all calls


class Root(Protocol):
    """A directory opened as one side. Close it at the end of the cycle: it blocks umount."""

    fd: int  # O_PATH | O_DIRECTORY
    device: int
    inode: int

    def close(self) -> None:
        """Close it. Twice is harmless."""


class Rules(Protocol):
    """Compiled rules of one source. Last match wins, in the order: `first`, then the files named
    by the first of `nested` (shallow before deep), then those of the next, then `last`.

    A walk of the *source* teaches it the rule files it passes (a scan with Side.SOURCE,
    `Watcher.cover`): they are read before the directory's other names are judged, and only below
    directories that are not ignored themselves. A changed rule file wants a new `Rules`.
    An overlay (given exactly, relative to the root) is neither ignored nor mirrored: it and all
    below it are never touched; `excluded` is true for both kinds.
    """

    def excluded(self, path: bytes, is_dir: bool) -> bool:
        """Whether `path` is ignored or an overlay, or lies below one. Judged top-down, as git does."""

    def teaches(self, path: bytes) -> bool:
        """Whether a file at `path` would be read as a rule file, also if it is ignored itself."""

    def taught(self) -> list[bytes]:
        """The directories whose rule files were read, in no order."""

    def explain(self, path: bytes, is_dir: bool) -> Verdict | None:
        """The deciding rule, or None if no rule speaks of the path or of a directory above it.

        For an overlay: Verdict(True, overlay, "overlay", 0, overlay).
        """


class Tree(Protocol):
    """What one scan saw of one root."""

    troubles: list[Trouble]  # each makes its path and all below it unknown
    others: list[Raw]  # FIFOs, sockets, devices: present (entries of kind OTHER), never mirrored
    scope: tuple[Look, ...] | None  # what was really looked at (see `scan`); None = everything
    bytes: int  # sum of the sizes of its files

    def __len__(self) -> int:
        """Entries, the root not counted."""

    def get(self, path: Raw) -> Entry | None:
        """The entry at `path`."""

    def rows(self, below: Raw = b"") -> Iterator[tuple[Raw, Entry]]:
        """Everything below a path (itself not), in order. For people and tests, not for hot paths."""

    def differing(self, other: "Tree") -> list[Raw]:
        """Paths of this and `other` whose fingerprints or presence differ, in order.

        Where either holds something unknown, nothing at or below is listed. For polling.
        """


class Base(Protocol):
    """A baseline: what both sides last agreed on, path by path."""

    def __len__(self) -> int:
        """Entries, the root not counted."""

    def get(self, path: bytes) -> Agreed | None:
        """The row at `path`."""

    def rows(self, below: bytes = b"") -> Iterator[tuple[bytes, Agreed]]:
        """Everything below a path (itself not), in order."""

    def shared(self) -> list[bytes]:
        """Paths of files whose source had further hard links, in order."""


class Diff(Protocol):
    """Every path in scope, sorted into the lines of the table."""

    def count(self, line: Line) -> int:
        """How many paths stand in a line."""

    def counts(self) -> dict[Line, int]:
        """The same of every line."""

    def bytes(self, line: Line) -> int:
        """Bytes of the source's files in a line (for GONE: of the baseline's target)."""

    def rows(self, line: Line, start: int = 0, stop: int = -1) -> list[Row]:
        """Rows start … stop of a line in path order (-1 = to the end). SAME has none."""

    unexplained: int  # rows of GONE that nothing vouches for (see `diff`)
    id: str  # XXH3-128 (hex) of the sorted paths of GONE, each with a 0 byte after it; "" when it is empty

    def actions(self, verbs: Mapping[Line, Verb]) -> "Actions":
        """The rows whose line has a verb other than LEAVE, in the order in which `place` needs them.

        1. puts and replacements of directories, parents first;
        2. puts, replacements and records of everything else, in path order;
        3. removals, in the reverse of path order;
        4. records of directories, in path order: their times vouch for the removals, also when these were cut short;
        (directory modes are set last, by `place` itself, when the last slice is done).
        """


class Actions(Protocol):
    """Ordered steps. Slices of it are placed one after the other."""

    def __len__(self) -> int: ...

    def path(self, index: int) -> Raw:
        """Where a step is done. Raises IndexError."""


class Outcomes(Protocol):
    """How the actions of one slice ended."""

    next: int  # where the next slice starts (smaller than `stop` when it was cut short)
    puts: int  # puts and replacements that ended as DONE with a source entry
    removed: int  # entries that left the target: removals and replacements without a source entry
    stopped: int  # errno that stopped the slice (ENOSPC, EDQUOT, EROFS, EIO), else 0
    bytes: int  # bytes written into the target

    @property
    def done(self) -> int:
        """Actions that ended as DONE."""

    @property
    def same(self) -> int:
        """… as SAME."""

    @property
    def smooth(self) -> bool:
        """All ended as one of these two, and nothing was set aside or left out."""

    def counts(self) -> dict[Status, int]:
        """Actions by their end."""

    def paths(self, status: Status) -> list[Raw]:
        """The paths that ended so, in order of their actions."""

    troubles: list[Trouble]  # one for each FAILED
    aside: list[tuple[Raw, Raw]]  # (path, where it is kept below the staging directory)
    dropped: list[tuple[Raw, int]]  # (path, S_ISUID | S_ISGID bits that were not mirrored)


class Prepared(Protocol):
    """What `prepare` made ready for `place`: content in memory, and files `new-N` in staging."""

    def __len__(self) -> int:
        """How many files are ready."""

    def clear(self, staging: int) -> None:
        """Forget everything; what was written into the open directory `staging` is removed."""


class PlaceOptions(NamedTuple):
    """How `place` writes.

    `staging` and `journal` are open descriptors: a directory that shares a mount with the target
    (temporary names `new-N`, `old-N`, `olds-N` stand in it only during a call), and a file opened with O_APPEND.
    `aside` names, relative to `staging`, the directory into which entries are set aside (made when
    needed, 0700). `write` is "auto", "replace" or "inplace". `direct`: the target is empty and nobody
    reads it yet, so a file of at most 128 KiB may be created under its final name.
    `owner` = (uid, gid) for every entry; None = as root the source entry's owner, else leave it.
    `patient`: a file that somebody holds open for writing is not BUSY if two reads of it, 30 ms apart,
    agree (one pause for all such files of the slice). What is `prepared` is used, and taken out of it, if the
    source's file is as it was then, and the one in staging, too.
    """

    staging: int
    journal: int
    aside: bytes
    write: str = "auto"
    direct: bool = False
    owner: tuple[int, int] | None = None
    patient: bool = False
    prepared: Prepared | None = None


class Intent(NamedTuple):
    """What a batch was about to make of a path when it was cut off. `entry` None = remove it.

    Only kind, digest and link of `entry` mean anything.
    """

    path: bytes
    kind: int  # 0 = remove
    digest: bytes | None
    link: bytes | None


class Loaded(NamedTuple):
    """A baseline read back: the rows, the notes in the order of writing, intents without outcomes.

    `whole` is False when a record was cut off or failed its checksum (reading ended there).
    """

    base: Base
    notes: list[bytes]
    intents: list[Intent]
    whole: bool


class Kernel(Protocol):
    """The primitives. See the module's docstring for what holds for all of them."""

    name: str  # "native" or "pure"

    def control(self) -> Control:
        """A new control block: not cancelled, counters at 0."""

    def open_root(self, path: bytes, covered: Collection[Raw] = ()) -> Root:
        """Open the directory `path` (absolute; links in it are followed, it is the user's word).

        `covered` are paths below it where something is mounted over what belongs to it: they are out of sight.

        Raises OSError (ENOENT, ENOTDIR, EACCES, ...).
        """

    def compile_rules(
        self,
        first: Sequence[RuleSource],
        nested: Sequence[bytes],
        last: Sequence[RuleSource],
        overlays: Collection[bytes],
    ) -> Rules:
        """Compile rules exactly as git reads them. A line git would skip is skipped. Never raises.

        `nested` are names of rule files inside the source, e.g. (b".gitignore", b".syncdignore").
        """

    def scan(
        self,
        root: Root,
        rules: Rules,
        side: Side,
        known: Base,
        scope: Sequence[Look] | Tree | None,
        control: Control,
        force: bool = False,
    ) -> Tree:
        """Read entries (lstat and link text; no content) below `root`.

        An entry whose fingerprint equals the one `known` has for this side takes over its digest;
        any other file's digest is None (in doubt); so is, where a source has a scope, that of a file that changed in
        the last 5 seconds: before Linux 6.13 two writes within some milliseconds leave the same times, and of the
        second one only the word that named it tells. Excluded names are passed over. Mount points
        are crossed; where `known` says mount and the directory now lies on its parent's device,
        the mount is gone: trouble (ENODEV, "mount") at that path; so it is (EBUSY, "mount") at each path that the
        root was opened with as covered.
        `force` asks the file's server (`statx` AT_STATX_FORCE_SYNC).

        scope None: everything. Else only these places, and `Tree.scope` tells what that came to:
        * SOURCE: a place under a directory that is not there stands for the topmost missing
          directory if `known` has that, and for nothing otherwise. The directory above each place
          is looked at too (shallow), and so are directories on the way that `known` lacks.
        * A place where no directory stands, or a directory that `known` lacks, counts as deep,
          unless it was only looked at on the way.
        * A directory of `known` that goes away between the two steps is trouble (EAGAIN): what it held is
          not in scope, and nothing may be made of its absence alone.
        * TARGET: give it the source's tree, for its scope; it is looked at as it stands.
        Scopes are sorted and without repetition; excluded places leave them.
        """

    def digest(
        self,
        base: Base,
        source: Tree,
        target: Tree,
        roots: tuple[Root, Root],
        control: Control,
        exact: bool = False,
    ) -> tuple[Tree, Tree]:
        """Read the files whose doubt matters to the table, and return the trees with their digests.

        A target file in doubt is read unless its size already tells it from both others; a source
        file in doubt only if the target's is in doubt, missing or unlike the baseline and its own size is the
        target's or the baseline's. `exact` reads also the other source files in doubt whose size equals the baseline's,
        so that `diff` never calls a touched file changed. What cannot be read becomes trouble
        ("read") and so unknown. A file that changes while it is read keeps no digest.
        """

    def diff(
        self,
        base: Base,
        source: Tree,
        target: Tree,
        removed: Collection[bytes] = (),
        explained: bool = False,
    ) -> Diff:
        """Sort every path in the scope of `source` by the table. Pure: no I/O.

        An OTHER in the source counts as missing; in the target it is an entry equal to nothing.
        A file in doubt equals nothing. Directories are equal to directories.
        SAME: S = T = B and both fingerprints, mode and mtime are as the baseline has them (of a target
        directory only kind and permission bits count).
        S and T both missing while B is there is AGREED (the row will be dropped).
        A directory that would be GONE is UNKNOWN where anything below it is: it cannot be removed, and the rows
        below it must not go with its own.
        A row of GONE is explained when `explained`, when it or a directory above is in `removed`, or
        when the nearest directory above that is still in the source has the baseline's inode but
        another mtime. If that directory is out of scope, or is the root and the baseline has no row b"",
        only the former count. (The root's own times: `Tree.get(b"")`, settled under the path b"".)
        """

    def patch(self, base: Base, outcomes: Outcomes) -> Base:
        """The baseline after `outcomes`, in O(len(outcomes)). The old handle must not be used again."""

    def settle(self, base: Base, rows: Sequence[tuple[bytes, Agreed | None]], journal: int) -> Base:
        """Set or drop single rows, journalled in one write as outcomes. For recovery, not for hot paths.

        Dropping a directory drops what it holds. The old handle must not be used again. No rows: this only
        closes the intents that are open.
        """

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
    ) -> Outcomes:
        """Carry out actions start … stop (at most 2,000). The one function that writes a target.

        In four steps: take (read every source file to be put, hash it, hold at most 128 KiB of each
        and 32 MiB in all in memory, write the rest to staging), one `write` of intents to the
        journal, publish, one `write` of outcomes. A journal that cannot be written raises OSError before
        the target is touched.

        Take: a file is accepted only if a read-lease probe before and after the read succeeds and
        its ctime and size are the same on the open descriptor; EAGAIN is BUSY; where leases are
        refused (EACCES, EINVAL, EOPNOTSUPP, ...) two reads that agree are asked for.
        If T = B and the digest is the baseline's, it becomes a RECORD and ends as SAME.
        Copies are made by FICLONE, else copy_file_range, else read and write; holes stay holes.

        Publish: every target entry is first compared with what the scan saw (fingerprint; of a
        directory the kind); another one is CHANGED. Directories missing on the way are made with
        the source's mode, and learnt; an entry on the way that is no directory is set aside.
        In place (one pwrite, then ftruncate if longer before) only if `write` is not "replace" and the target is a
        regular file with one link, not executable (auto only), equal to the baseline, owner and permission bits
        unchanged, old and new size at most 128 KiB (auto only), read-lease probe passed; growth beyond its blocks is reserved by
        fallocate first (the size stays); shrinking (auto only) or a failed reservation goes beside. A short write is
        finished beside at once, else FAILED with "torn". Otherwise beside: `new-N` written in staging with mode, owner and mtime; an old file linked to `old-N`;
        plain rename over; `old-N` compared with what was expected: the same is unlinked, unless somebody holds it open
        for writing (read-lease probe); another, or that one, is moved aside.
        A kind change renames the old entry (a whole subtree) to `aside`, makes the new one, then drops from there what the
        baseline has and nobody changed; what is left stays aside. If an overlay lies at or below, nothing
        is done: FAILED, EBUSY, "overlay".
        EXDEV from staging: a temporary name `.syncd-N` in the entry's own directory instead.
        REPLACE: the target's entry is renamed into `aside`, under its own path (RENAME_NOREPLACE, `.1`, `.2` … on
        collision) before the put; if that fails nothing at the path is touched; if the put fails it gets its name back.
        A directory in whose place nothing comes stays, KEPT, while it holds an ignored name or an overlay.
        REMOVE unlinks only what the scan saw; a file that somebody holds open for writing is moved to `aside`; a directory by rmdir, ENOTEMPTY is KEPT, but FAILED if an action of this plan below it was to remove something and did not:
        dropping its row would make that the container's. What is to go and is gone already
        is DONE. A RECORD of a path missing on both sides drops the row; a newly ignored entry stays where it is.
        A RECORD of a file or link with further hard links that needs another mode or mtime puts it anew.
        ENOSPC, EDQUOT, EROFS and EIO on the target stop the slice after its removals were done: half-made
        files are removed, `stopped` is set, the untouched actions are in no outcome and `next` is `start` or
        the first of them. Outcomes that cannot be written to the journal set `stopped`, too; they are true all the same.
        Kept: content, permission bits and sticky, mtime (ns) of files and links, link text, owner as in options.
        Directories that had to be made writable, and new ones, get their final mode when the last action
        of `actions` is done or the slice stops.
        Both fingerprints in an outcome are taken from open descriptors after the last write to it.
        The target's is zeros, so that the next scan is in doubt, if somebody wrote the new entry meanwhile: its size or
        mtime are others, or, in place, the content read back is another. A record that set an mtime reads back, too: CHANGED.
        """

    def prepared(self) -> Prepared:
        """Nothing, for a start."""

    def prepare(
        self, roots: tuple[Root, Root], base: Base, paths: Collection[bytes], options: PlaceOptions, control: Control
    ) -> None:
        """Read ahead of `place`, into `options.prepared`, what some paths of the source hold, and write it into staging.

        Only a saving: a body may pass over any of them, and the rest when there is no room. What was prepared for a path
        before is dropped. Nothing in the target is touched, nothing is raised for a file.
        """

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
    ) -> Outcomes | None:
        """open_root, scan, digest, diff and place in one call, for a batch in which there is nothing to decide.

        `looked` are the paths of the scope, `deep` those of them that are looked at with all they hold.
        None, and no target was touched, if the roots at `paths` cannot be opened or are not those with the (device,
        inode) of `roots`; if there is any trouble or OTHER in the scope, or the source's root and its times are not those
        of the row b""; if a row stands in another line than SAME,
        AGREED and CHANGED; or if there are more than 2,000 actions. Raises what `place` raises.
        """

    def stat_many(self, root: Root, paths: Sequence[bytes], force: bool = False) -> list[Entry | int | None]:
        """lstat each path: an Entry (no digest), None if absent, or the errno that makes it unknown."""

    def hash_many(self, root: Root, paths: Sequence[bytes], control: Control) -> list[bytes | int]:
        """The digest of each file, or an errno (ENOENT: no file there; EAGAIN: it is being written; ECANCELED)."""

    def empty_base(self) -> Base:
        """A baseline without rows."""

    def save_tree(self, base: Base, notes: Sequence[bytes], fd: int) -> None:
        """Write a checkpoint (format below) to an empty open file. Flushing and renaming is the caller's.

        A checkpoint and a journal are the same kind of file: the 8 bytes `SYNCDB1\\n`, then frames
            u32 length of payload | u64 XXH3-64 of payload | payload
        all integers little-endian. A payload starts with one byte that tells its kind:
            N  a note: bytes that mean something to the caller only
            I  intents, O outcomes: rows to the end of the payload
            E  end: u64 number of rows in the frames before it; only the last frame of a checkpoint,
               whose rows stand in O frames
        A row:
            u32 length of path | path | u8 kind (0: no entry) | u8 flags (1 shared, 2 mount) | u16 permission bits
            i64 mtime_ns | 16 bytes digest (zeros unless a file)
            2 × fingerprint (u64 size, i64 mtime_ns, i64 ctime_ns, u64 inode, u32 mode): source, target
            u32 length of link text | link text
        A row of kind 0 drops the path and all below it; one that is no directory drops all below it. An intent's times and fingerprints are zeros. Frames of a checkpoint hold at
        most 4,096 rows each, in path order.
        """

    def load_tree(self, fds: Sequence[int]) -> Loaded:
        """Read a checkpoint and the journals after it, in order. Raises OSError only for a failed read.

        Reading ends at the first bad frame of a journal. A bad or unfinished checkpoint (first
        descriptor; no E frame) gives an empty baseline, no intents and whole = False. Intents count as open when no
        outcomes frame follows them. An empty file is an empty journal. The rows' root (path b"") may hold the root's fingerprints.
        """

    def former(self, fds: Sequence[int], base: Base) -> list[tuple[bytes, Agreed]]:
        """Rows that state files once set at paths where `base` has none, in the order of writing, for recovery.

        Each file is read to its end or its first bad frame, which costs only what follows it. Raises OSError only
        for a failed read.
        """

    def note(self, journal: int, note: bytes) -> None:
        """Append one N frame (after the 8 bytes if the file is empty), in one write."""
