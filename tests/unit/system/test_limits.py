import errno

import pytest

from syncd.system import limits


@pytest.fixture
def sysctl(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "SYSCTL", tmp_path)
    (tmp_path / "fs/inotify").mkdir(parents=True)
    (tmp_path / "user").mkdir()
    for name, value in (("max_user_watches", 8192), ("max_user_instances", 128), ("max_queued_events", 16384)):
        (tmp_path / "fs/inotify" / name).write_text(f"{value}\n")
    return tmp_path


def test_the_limits_are_read(sysctl):
    assert limits.limits() == (8192, 128, 16384)
    (sysctl / "fs/inotify/max_queued_events").unlink()
    assert limits.limits() is None
    assert limits.shortage(10**9) is None


def test_the_limits_of_a_namespace_may_be_lower(sysctl):
    (sysctl / "user/max_inotify_watches").write_text("20\n")
    (sysctl / "user/max_inotify_instances").write_text("1000\n")
    assert limits.limits() == (20, 128, 16384)
    assert "sudo sysctl user.max_inotify_watches=524288" in limits.shortage(30)
    assert "fs.inotify.max_user_instances=1024" in limits.shortage(30, errno.EMFILE)


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
def test_what_a_shortage_says(sysctl, needed, refused, words):
    text = limits.shortage(needed, refused)
    assert (text is None) == (words is None)
    for word in words or ():
        assert word in text
