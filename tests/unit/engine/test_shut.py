"""Which directories of the target get their owner's rights back."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from syncd.engine.shut import open_shut
from syncd.kernel.contract import Look
from syncd.model.entry import Kind

MODES = {b"a": 0o000, b"a/b": 0o600, b"open": 0o755, b"theirs": 0o000}


def seen(*troubles: bytes, unknown: tuple[bytes, ...] = (), scope: tuple[Look, ...] | None = None) -> Any:
    """A sight of which only the troubles and the scope count."""
    target = [SimpleNamespace(path=path, errno=errno.EACCES) for path in troubles]
    source = [SimpleNamespace(path=path, errno=errno.EACCES) for path in unknown]
    return SimpleNamespace(
        target=SimpleNamespace(troubles=target), source=SimpleNamespace(troubles=source, scope=scope)
    )


def opened(top: Path, sight: Any) -> bool:
    base = SimpleNamespace(get=lambda path: SimpleNamespace(kind=Kind.DIR, mode=MODES[path]) if path in MODES else None)
    fd = os.open(top, os.O_RDONLY)
    try:
        return open_shut(SimpleNamespace(fd=fd), base, sight)  # type: ignore[arg-type]
    finally:
        os.close(fd)


def modes(top: Path) -> dict[bytes, int]:
    return {path: os.stat(os.path.join(os.fsencode(top), path)).st_mode & 0o777 for path in MODES}


@pytest.fixture
def top(tmp_path: Path):
    for path in MODES:
        (tmp_path / os.fsdecode(path)).mkdir()
    (tmp_path / "link").symlink_to("a")
    for path, mode in sorted(MODES.items(), reverse=True):
        (tmp_path / os.fsdecode(path)).chmod(0o070 if path == b"theirs" else mode)
    yield tmp_path
    for path in ("a", "a/b", "theirs"):
        (tmp_path / path).chmod(0o755)


def test_what_the_mirror_shut_is_opened_from_the_top(top: Path) -> None:
    assert opened(top, seen(b"a/b/x"))
    now = modes(top)
    assert (now[b"a"], now[b"a/b"], now[b"open"]) == (0o700, 0o700, 0o755)
    assert not opened(top, seen(b"a/b/x")), "its mode is not the baseline's any more"


@pytest.mark.parametrize(
    "sight",
    [
        seen(b"theirs"),  # another mode than the baseline's
        seen(b"open/x"),
        seen(b"link/b"),
        seen(b"unheard/of"),
        seen(b"a", unknown=(b"a",)),
        seen(b"a", scope=(Look(b"other", True),)),
    ],
)
def test_everything_else_is_left_alone(top: Path, sight: Any) -> None:
    before = modes(top) if os.geteuid() == 0 else None
    assert not opened(top, sight)
    assert before is None or modes(top) == before


def test_a_filesystem_that_keeps_its_modes_is_asked_once(top: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "chmod", lambda *_: None)
    assert not opened(top, seen(b"a"))
