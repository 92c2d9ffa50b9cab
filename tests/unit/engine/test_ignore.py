"""The rules that nobody wrote."""

from __future__ import annotations

import pytest

from syncd.engine.ignore import compile_rules
from syncd.kernel.choose import load
from syncd.model.settings import Settings

pytestmark = pytest.mark.kernel

TEMPORARY = [
    b"a.txt~", b"#a.txt#", b".#a.txt", b".a.txt.swp", b"d/.a.swo", b".a.swpx", b".swp", b".swpx", b"4913", b"a___jb_tmp___",
    b".fuse_hidden0001", b".nfs0001",
]  # fmt: skip
REAL = [b"movie.swf", b"lib.swc", b"a.swp", b"a.swift", b".swc9", b"49130", b"#a", b"jb", b".nf"]


@pytest.mark.parametrize("path", TEMPORARY)
def test_what_editors_leave_for_a_moment_is_left_out(path: bytes) -> None:
    assert compile_rules(load(), Settings(b"", b"")).excluded(path, False)


@pytest.mark.parametrize("path", REAL)
def test_what_only_looks_like_it_is_mirrored(path: bytes) -> None:
    assert not compile_rules(load(), Settings(b"", b"")).excluded(path, False)


def test_a_directory_is_not_the_probe_of_vim() -> None:
    rules = compile_rules(load(), Settings(b"", b""))
    assert not rules.excluded(b"4913", True)
    assert not rules.excluded(b"4913/x", False)
