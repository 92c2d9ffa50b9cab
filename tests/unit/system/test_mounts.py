import os
import select
import subprocess

import pytest

from syncd.system import mounts, statx
from syncd.system.mounts import events_lie, find, mount_of, mounts_below, parse, unique_mount_id

TEXT = rb"""
21 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,discard
22 21 0:20 / /proc rw - proc proc rw
30 21 8:1 / /home rw master:2 propagate_from:3 - xfs /dev/sda1 rw
31 30 0:40 / /home/a\040b rw - fuse.sshfs host:/x\134y rw,user_id=0
32 31 0:41 /deep /home/a\040b/in\011ner ro - tmpfs tmp\043fs rw
33 30 0:42 / /home/old rw - tmpfs tmpfs rw
34 21 0:43 / /home rw - btrfs /dev/sdb rw
41 34 0:44 / /home/new rw - 9p C:\134 rw
a line of nonsense
"""


def test_a_line_is_read():
    mount = parse(TEXT)[3]
    assert mount == (31, 30, os.makedev(0, 40), b"/", b"/home/a b", "fuse.sshfs", b"host:/x\\y", "rw,rw,user_id=0")
    assert parse(TEXT)[4].point == b"/home/a b/in\tner"
    assert parse(TEXT)[4].source == b"tmp#fs"
    assert len(parse(TEXT)) == 8


@pytest.mark.parametrize(
    ("path", "hidden", "want"),
    [
        (b"/", (), 21),
        (b"/usr/lib", (), 21),
        (b"/proc/1", (), 22),
        (b"/process", (), 21),
        (b"/home", (34, 41), 30),
        (b"/home/x", (34, 41), 30),
        (b"/home/a b", (34, 41), 31),
        (b"/home/a bc", (34, 41), 30),
        (b"/home/a b/in\tner/x", (34, 41), 32),
        (b"/home/new/x", (30, 31, 32, 33), 41),
        (b"/home/old", (30, 31, 32, 33), 34),  # its mount lies under the one that covers /home
    ],
)
def test_the_deepest_mount_is_found(path, hidden, want):
    found = find(path, [mount for mount in parse(TEXT) if mount.id not in hidden])
    assert found is not None
    assert found.id == want


def test_stacked_mounts_show_the_topmost():
    text = b"1 0 8:1 / / rw - ext4 d rw\n2 1 0:2 / /m rw - tmpfs a rw\n3 2 0:3 / /m rw - tmpfs b rw\n"
    assert find(b"/m/x", parse(text)).id == 3
    assert find(b"/m/x", []) is None


LOCAL = ("ext4", "xfs", "btrfs", "zfs", "tmpfs", "overlay", "ecryptfs", "fuseblk", "f2fs", "bcachefs", "apfs")
SHARES = ("9p", "nfs", "nfs4", "cifs", "smb3", "virtiofs", "vboxsf", "prl_fs", "osxfs", "fakeowner", "vmhgfs")
FUSE = ("fuse", "fuse.sshfs", "fuse.rclone", "fuse.grpcfuse", "fuse.vmhgfs-fuse", "fuse.osxfs", "fuse.bindfs", "fuse.x")


@pytest.mark.parametrize(
    ("fstype", "lies"), [(name, False) for name in LOCAL] + [(name, True) for name in SHARES + FUSE]
)
def test_whose_events_lie(fstype, lies):
    reason = events_lie(fstype)
    assert (reason is not None) == lies
    if reason is not None:
        assert reason.startswith(f"{fstype}: ")


def test_this_machine(tmp_path):
    path = os.fsencode(tmp_path)
    mount = mount_of(path)
    assert mount is not None
    assert mount.id == statx.statx(path, 0, statx.MNT_ID).mount
    assert mounts_below(path) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_a_mount_comes_and_goes(tmp_path):
    above, point = tmp_path / "a", tmp_path / "a" / "with space\n"
    point.mkdir(parents=True)
    outside = unique_mount_id(os.fsencode(point))
    fd = mounts.open_changes()
    poll = select.poll()
    poll.register(fd, select.POLLPRI)
    poll.poll(0)
    subprocess.run(["mount", "-t", "tmpfs", "none", point], check=True)
    try:
        assert poll.poll(1_000)
        assert [(m.point, m.fstype) for m in mounts_below(os.fsencode(above))] == [(os.fsencode(point), "tmpfs")]
        assert mounts_below(os.fsencode(point)) == []
        inside = unique_mount_id(os.fsencode(point))
        assert inside not in (0, outside)
        held = os.open(point, os.O_RDONLY)
        assert unique_mount_id(held) == inside
        os.close(held)
    finally:
        subprocess.run(["umount", point], check=True)
    assert poll.poll(1_000)
    os.close(fd)
    assert unique_mount_id(os.fsencode(point)) == outside


def test_the_id_without_statx(tmp_path, monkeypatch):
    path = os.fsencode(tmp_path)
    monkeypatch.setattr(statx, "_call", lambda: None)
    assert unique_mount_id(path) == mount_of(path).id
    with pytest.raises(FileNotFoundError):
        unique_mount_id(path + b"/absent")


def test_the_id_of_nothing(tmp_path):
    with pytest.raises(FileNotFoundError):
        unique_mount_id(os.fsencode(tmp_path / "absent"))
