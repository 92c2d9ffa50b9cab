import os

import pytest

from syncd.system.statx import AT_FORCE_SYNC, AT_SYMLINK_NOFOLLOW, statx


@pytest.mark.parametrize("flags", [AT_SYMLINK_NOFOLLOW, AT_SYMLINK_NOFOLLOW | AT_FORCE_SYNC])
def test_it_tells_what_lstat_tells(tmp_path, flags):
    (tmp_path / "file").write_bytes(b"12345")
    (tmp_path / "link").symlink_to("file")
    for name in ("file", "link", "."):
        seen, want = statx(os.fsencode(tmp_path / name), flags), os.lstat(tmp_path / name)
        assert (seen.mode, seen.inode, seen.size, seen.nlink) == (
            want.st_mode,
            want.st_ino,
            want.st_size,
            want.st_nlink,
        )
        assert (seen.mtime_ns, seen.ctime_ns, seen.device) == (want.st_mtime_ns, want.st_ctime_ns, want.st_dev)
    assert statx(os.fsencode(tmp_path / "file")).is_regular
    assert not statx(os.fsencode(tmp_path / "link")).is_regular


def test_by_descriptor_and_by_name_below_one(tmp_path):
    (tmp_path / "file").write_bytes(b"12345")
    fd = os.open(tmp_path, os.O_PATH)
    try:
        assert statx(fd).inode == os.stat(tmp_path).st_ino
        assert statx(b"file", dir_fd=fd).size == 5
        with pytest.raises(FileNotFoundError):
            statx(b"absent", dir_fd=fd)
    finally:
        os.close(fd)
