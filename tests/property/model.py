"""The table of the design as a model: what one cycle makes of a target. It shares nothing with syncd.

A tree is a dict from path to Node, read from disk by plain `os` calls. Given what stands on both sides and
what was agreed before, `cycle` says what must stand in the target afterwards and what is agreed then.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple


class Node(NamedTuple):
    """One entry: kind is "file", "dir", "link" or "other"; a directory has no time."""

    kind: str
    body: bytes = b""
    mode: int = 0
    mtime_ns: int = 0


Nodes = dict[bytes, Node]


def read(top: str) -> Nodes:
    """Everything below a directory, ignored names and FIFOs included."""
    found: Nodes = {}
    for here, directories, files in os.walk(os.fsencode(top)):
        for name in directories + files:
            path = os.path.join(here, name)
            about = os.lstat(path)
            mode = stat.S_IMODE(about.st_mode)
            if stat.S_ISDIR(about.st_mode):
                node = Node("dir", mode=mode)
            elif stat.S_ISLNK(about.st_mode):
                node = Node("link", os.readlink(path), 0, about.st_mtime_ns)
            elif stat.S_ISREG(about.st_mode):
                with open(path, "rb") as file:
                    node = Node("file", file.read(), mode, about.st_mtime_ns)
            else:
                node = Node("other")
            found[os.path.relpath(path, os.fsencode(top))] = node
    return found


def above(path: bytes) -> Iterator[bytes]:
    """The directories above a path, the topmost first; not the root."""
    steps = path.split(b"/")
    for count in range(1, len(steps)):
        yield b"/".join(steps[:count])


def below(nodes: Nodes, path: bytes) -> list[bytes]:
    return [each for each in nodes if each.startswith(path + b"/")]


def alike(one: Node | None, other: Node | None) -> bool:
    """Equal in the sense of the table. A FIFO and its kin are equal to nothing."""
    if one is None or other is None:
        return one is other
    return one.kind == other.kind != "other" and one.body == other.body


@dataclass
class Model:
    """Both sides as they stand, what was agreed, and the policy."""

    source: Nodes
    target: Nodes
    agreed: Nodes
    policy: str  # "keep" or "mirror"
    ignored: bytes  # names with this ending are ignored
    overlays: tuple[bytes, ...]
    refused: set[bytes] = field(default_factory=set)  # paths that an overlay forbids to touch
    scope: dict[bytes, bool] | None = None

    def cycle(self, places: set[bytes] | None = None) -> None:
        """Change `target` and `agreed` as one cycle has to; `places` None: a full one."""
        self.refused = set()
        self.scope = None if places is None else self._scope(places)
        source = {path: node for path, node in self.source.items() if node.kind != "other"}
        verbs = {}
        for path in {*self.source, *self.target, *self.agreed}:
            if not self._excluded(path) and self._in_scope(path):
                verb = self._verb(self.agreed.get(path), source.get(path), self.target.get(path))
                if verb != "leave":
                    verbs[path] = verb
        order = sorted(verbs, key=lambda path: path.split(b"/"))
        makes = [p for p in order if verbs[p] in ("put", "replace") and p in source and source[p].kind == "dir"]
        removals = [p for p in reversed(order) if verbs[p] == "remove"]
        rest = [p for p in order if p not in makes and p not in removals]
        for path in [*makes, *rest, *removals]:
            self._act(verbs[path], path, source)

    def _verb(self, agreed: Node | None, source: Node | None, target: Node | None) -> str:
        keep = self.policy == "keep"
        if alike(source, target):
            return "record"
        if alike(target, agreed):
            return "put" if source else "remove"
        if alike(source, agreed):
            if keep:
                return "leave"
            return "put" if source and not target else "replace"
        return "replace"

    def _act(self, verb: str, path: bytes, source: Nodes) -> None:
        new, old = source.get(path), self.target.get(path)
        if new is None:
            self._take_away(verb, path, old)
            return
        if verb != "record":
            self._make_way(path, source)
            if old and (verb == "replace" or old.kind != new.kind) and not self._move_away(path):
                return
        self.target[path] = new
        self.agreed[path] = new
        if new.kind != "dir":
            self._forget_below(path)

    def _take_away(self, verb: str, path: bytes, old: Node | None) -> None:
        if old is not None and path in self.target:
            if verb == "replace":
                if old.kind == "dir" and any(self._excluded(each) for each in below(self.target, path)):
                    pass  # what is ignored is not moved: the directory stays
                elif not self._move_away(path):
                    return
            elif verb == "remove" and not below(self.target, path):
                del self.target[path]
        self.agreed.pop(path, None)
        self._forget_below(path)

    def _make_way(self, path: bytes, source: Nodes) -> None:
        for step in above(path):
            node = self.target.get(step)
            if node is None or node.kind != "dir":
                self.target[step] = source[step]

    def _move_away(self, path: bytes) -> bool:
        within = [each for each in self.overlays if each == path or each.startswith(path + b"/")]
        if self.target[path].kind == "dir" and within:
            self.refused.add(path)
            return False
        for each in (path, *below(self.target, path)):
            del self.target[each]
        return True

    def _forget_below(self, path: bytes) -> None:
        for each in below(self.agreed, path):
            del self.agreed[each]

    def _excluded(self, path: bytes) -> bool:
        return any(step.endswith(self.ignored) or step in self.overlays for step in (*above(path), path))

    def _scope(self, places: set[bytes]) -> dict[bytes, bool]:
        found: dict[bytes, bool] = {}

        def add(path: bytes, deep: bool) -> None:
            found[path] = found.get(path, False) or deep

        for place in places:
            if self._excluded(place):
                continue
            for step in (*above(place), place):
                node, known = self.source.get(step), self.agreed.get(step)
                if step == place or node is None or node.kind != "dir":
                    if step == place or known:
                        add(step, True)
                        add(os.path.dirname(step), False)
                    break
                if known is None or known.kind != "dir":
                    add(step, False)
        return found

    def _in_scope(self, path: bytes) -> bool:
        if self.scope is None or path in self.scope:
            return True
        return any(self.scope.get(step) for step in above(path))
