"""A container's hard link to a file outside, under a mirrored name: the file outside stays as it is."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.compare import assert_equal
from tests.integration.watching import environment, run


@pytest.mark.kernel
@pytest.mark.parametrize("body", [b"the same content", b"other"])
@pytest.mark.parametrize("how", ["chmod", "touch", "save"])
def test_a_file_outside_keeps_its_mode_time_and_content(tmp_path: Path, body: bytes, how: str) -> None:
    source, target, outside = tmp_path / "source", tmp_path / "target", tmp_path / "outside"
    source.mkdir()
    (source / "file").write_bytes(b"the same content")
    env = environment(tmp_path / "home")
    assert run("sync", str(source), str(target), env=env).returncode == 0
    outside.write_bytes(body)
    outside.chmod(0o600)
    os.utime(outside, ns=(1, 1))
    (target / "file").unlink()
    os.link(outside, target / "file")
    if how == "chmod":
        (source / "file").chmod(0o666)
    elif how == "touch":
        os.utime(source / "file", ns=(5 * 10**9, 5 * 10**9))
    else:
        (source / "file").write_bytes(b"something new")
    done = run("sync", str(source), str(target), env=env)
    assert done.returncode == 0, done.stderr
    about = outside.stat()
    assert (about.st_mode & 0o7777, about.st_mtime_ns, outside.read_bytes()) == (0o600, 1, body)
    if how == "save" or body == b"the same content":
        assert_equal(source, target)
