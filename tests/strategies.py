"""Hypothesis strategies: trees, odd names, edits."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from tests.trees import Dir, Fifo, File, Link, build

# Few names, so that edits meet what is there; odd ones among them.
NAMES = [b"a", b"b", b"a.txt", b"A", b"\xff", b"\n", b"n" * 255, "é".encode(), b"-", b"x.log"]

names = st.sampled_from(NAMES)
any_names = st.binary(min_size=1, max_size=255).filter(
    lambda name: name not in (b".", b"..") and not {0, 47} & set(name)
)
BODIES = [b"", b"1", b"2", b"one", b"two", b"x" * 4096, b"y" * 131_072, b"z" * 131_073]
bodies = st.integers(0, len(BODIES) - 1).map(lambda number: BODIES[number])
modes = st.sampled_from([0o644, 0o755, 0o600, 0o4755])
times = st.sampled_from([None, 0, 1, 1_000_000_000_123_456_789, 4_102_444_800_000_000_001])

files = st.builds(File, bodies, modes, times)
links = st.builds(Link, st.sampled_from([b"a", b"b", b"/", b"..", b"\xff"]))
leaves = files | links | st.just(Fifo())


def directories(inside: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Directories with a mode of their own."""
    return st.builds(Dir, st.dictionaries(names, inside, max_size=4), st.sampled_from([0o755, 0o700, 0o555]))


entries = st.recursive(leaves, directories, max_leaves=12)
trees = st.dictionaries(names | any_names, entries, max_size=5)
paths = st.lists(names, min_size=1, max_size=3).map(b"/".join)


@st.composite
def edits(draw: st.DrawFn) -> tuple[str, bytes, Any]:
    """One edit: what is done, where, and with what."""
    do = draw(st.sampled_from(["put", "remove", "touch", "chmod", "move", "link", "rewrite"]))
    argument = {
        "put": entries,
        "chmod": st.sampled_from([0o600, 0o755]),
        "move": paths,
        "link": paths,
        "touch": st.sampled_from([0, 5, 1_700_000_000_000_000_000]),
        "rewrite": st.integers(0, len(BODIES) - 1),
    }.get(do, st.none())
    return do, draw(paths), draw(argument)


def edit(top: Path, change: tuple[str, bytes, Any]) -> None:
    """Do one edit below `top`; one that makes no sense there does nothing."""
    do, path, argument = change
    where = os.fsencode(top) + b"/" + path
    try:
        if do == "put":
            remove(top, where)
            build(os.path.dirname(where), {os.path.basename(where): argument})
        elif do == "remove":
            remove(top, where)
        elif do == "touch":
            os.utime(where, ns=(argument, argument), follow_symlinks=False)
        elif do == "chmod" and not os.path.islink(where):
            os.chmod(where, argument)
        elif do == "move":
            os.rename(where, os.fsencode(top) + b"/" + argument)
        elif do == "link":
            os.link(where, os.fsencode(top) + b"/" + argument, follow_symlinks=False)
        elif do == "rewrite" and os.path.isfile(where) and not os.path.islink(where):
            with open(where, "r+b") as file:
                file.write(BODIES[argument] if isinstance(argument, int) else argument)
                file.truncate()
    except OSError:
        pass


def remove(top: Path, path: bytes) -> None:
    """Remove whatever stands at a path. Directories are moved away, so that chance gives no new one their inodes."""
    if not os.path.isdir(path) or os.path.islink(path):
        if os.path.lexists(path):
            os.unlink(path)
        return
    for above, directories, files in os.walk(path, topdown=False):
        for name in files:
            os.unlink(above + b"/" + name)
        for name in directories:
            if os.path.islink(above + b"/" + name):
                os.unlink(above + b"/" + name)
        os.rename(above, os.fsencode(tempfile.mkdtemp(prefix="removed-", dir=top.parent)))
