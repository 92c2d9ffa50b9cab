"""Trees and baselines: values by path, kept as nested dicts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar

from syncd.kernel.contract import Look, Tree, Trouble
from syncd.model.entry import Agreed, Entry, Kind
from syncd.model.path import ancestors

V = TypeVar("V")


class Node(Generic[V]):
    """What stands at one path, and what lies below it by name."""

    __slots__ = ("below", "value")

    def __init__(self) -> None:
        self.value: V | None = None
        self.below: dict[bytes, Node[V]] = {}


class Nested(Generic[V]):
    """Values by path. The root's own value stands at b"" and is neither counted nor among the rows."""

    def __init__(self) -> None:
        self.top: Node[V] = Node()
        self.count = 0

    def __len__(self) -> int:
        return self.count

    def get(self, path: bytes) -> V | None:
        node = self.node(path)
        return node.value if node else None

    def rows(self, below: bytes = b"") -> Iterator[tuple[bytes, V]]:
        node = self.node(below)
        if node is None:
            return
        pending = [(below, node)]
        while pending:
            path, node = pending.pop()
            if node.value is not None and path != below:
                yield path, node.value
            pending += [(join(path, name), node.below[name]) for name in sorted(node.below, reverse=True)]

    def node(self, path: bytes) -> Node[V] | None:
        node: Node[V] | None = self.top
        for name in parts(path):
            node = node.below.get(name) if node else None
        return node

    def put(self, path: bytes, value: V) -> None:
        node = self.top
        for name in parts(path):
            node = node.below.setdefault(name, Node())
        if path and node.value is None:
            self.count += 1
        node.value = value

    def drop(self, path: bytes) -> None:
        """Forget the value at a path and all below it."""
        above, _, name = path.rpartition(b"/")
        node = self.node(path)
        if node is None:
            return
        self.count -= sum(1 for _ in self.rows(path)) + (path != b"" and node.value is not None)
        holder = self.node(above)
        if path and holder:
            del holder.below[name]
        else:
            self.top = Node()


class PureTree(Nested[Entry]):
    """What one scan saw of one root."""

    def __init__(self, scope: tuple[Look, ...] | None) -> None:
        super().__init__()
        self.scope = scope
        self.troubles: list[Trouble] = []
        self.others: list[bytes] = []
        self.bytes = 0
        self.unknown: set[bytes] = set()
        self.looks = None if scope is None else dict(scope)

    def finish(self) -> None:
        """Sum up after the last entry or trouble was added."""
        self.troubles.sort(key=lambda trouble: parts(trouble.path))
        self.unknown = {trouble.path for trouble in self.troubles}
        self.others = [path for path, entry in self.rows() if entry.kind == Kind.OTHER]
        self.bytes = sum(entry.seen.size for _, entry in self.rows() if entry.kind == Kind.FILE)

    def copy(self) -> PureTree:
        twin = PureTree(self.scope)
        for path, entry in ((b"", self.top.value), *self.rows()):
            if entry is not None:
                twin.put(path, entry)
        twin.troubles = list(self.troubles)
        twin.finish()
        return twin

    def knows(self, path: bytes) -> bool:
        """Whether neither a path nor a directory above it is unknown."""
        return not self.unknown or not any(step in self.unknown for step in (path, *ancestors(path), b""))

    def covers(self, path: bytes) -> bool:
        """Whether a path is in the scope."""
        if self.looks is None or path in self.looks:
            return True
        return any(self.looks.get(above) for above in (*ancestors(path), b""))

    def differing(self, other: Tree) -> list[bytes]:
        assert isinstance(other, PureTree)
        found = []
        for path in in_order({path for path, _ in (*self.rows(), *other.rows())}):
            mine, theirs = self.get(path), other.get(path)
            if (
                (mine and mine.seen) != (theirs and theirs.seen)
                and self.knows(path)
                and other.knows(path)
                and self.covers(path)
                and other.covers(path)
            ):
                found.append(path)
        return found


class PureBase(Nested[Agreed]):
    """A baseline."""

    def shared(self) -> list[bytes]:
        return [path for path, agreed in self.rows() if agreed.shared]

    def learn(self, rows: Iterable[tuple[bytes, Agreed | None]]) -> None:
        """Set or drop rows. What is no directory holds nothing, so setting it drops what lay below."""
        for path, agreed in rows:
            if agreed is None:
                self.drop(path)
                continue
            if agreed.kind != Kind.DIR:
                self.drop(path)
            self.put(path, agreed)


def parts(path: bytes) -> list[bytes]:
    """The components of a path: also the key by which paths are sorted."""
    return path.split(b"/") if path else []


def join(directory: bytes, name: bytes) -> bytes:
    return directory + b"/" + name if directory else name


def in_order(paths: Iterable[bytes]) -> list[bytes]:
    return sorted(paths, key=parts)
