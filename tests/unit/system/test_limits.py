import errno

import pytest

from syncd.system import limits


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "FOLDER", tmp_path)
    for name, value in (("max_user_watches", 8192), ("max_user_instances", 128), ("max_queued_events", 16384)):
        (tmp_path / name).write_text(f"{value}\n")
    return tmp_path


def test_the_limits_are_read(folder):
    assert limits.limits() == (8192, 128, 16384)
    (folder / "max_queued_events").unlink()
    assert limits.limits() is None
    assert limits.shortage(10**9) is None


@pytest.mark.parametrize(
    ("needed", "refused", "words"),
    [
        (8192, 0, None),
        (8193, 0, ("8,193 ", "8,192 ", "sudo sysctl fs.inotify.max_user_watches=524288")),
        (400_000, 0, ("400,000 ", "sudo sysctl fs.inotify.max_user_watches=1048576")),
        (100, errno.ENOSPC, ("100 ", "8,192 ", "other programs hold the rest", "max_user_watches=524288")),
        (100, errno.EMFILE, ("128 ", "sudo sysctl fs.inotify.max_user_instances=1024")),
    ],
)
def test_what_a_shortage_says(folder, needed, refused, words):
    text = limits.shortage(needed, refused)
    assert (text is None) == (words is None)
    for word in words or ():
        assert word in text
