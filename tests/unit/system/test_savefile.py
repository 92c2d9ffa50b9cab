import os
import stat

import pytest

from syncd.system.savefile import SaveFile


@pytest.mark.parametrize("name", ["state", "n" * 255])
def test_it_replaces_the_file(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(b"old, and longer")
    with SaveFile(path) as file:
        file.write(b"new")
        assert path.read_bytes() == b"old, and longer"
    assert path.read_bytes() == b"new"
    assert os.listdir(tmp_path) == [name]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_the_mode_is_given(tmp_path):
    with SaveFile(tmp_path / "f", mode=0o644):
        pass
    assert stat.S_IMODE((tmp_path / "f").stat().st_mode) == 0o644


def _fail(*_args):
    raise OSError(5, "broken disk")


@pytest.mark.parametrize("step", ["write", "fsync", "rename", "fchmod"])
def test_an_error_leaves_all_as_it_was(tmp_path, monkeypatch, step):
    path = tmp_path / "state"
    path.write_bytes(b"old")
    if step != "write":
        monkeypatch.setattr(os, step, _fail)
    with pytest.raises(OSError, match="broken disk"):
        _save(path, _fail if step == "write" else bytes)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["state"]


def _save(path, content):
    with SaveFile(path) as file:
        file.write(b"new")
        file.write(content())
