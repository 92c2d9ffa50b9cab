"""A real filesystem whose files fail on demand: what stands in a directory, shown through FUSE, read-only.

`faults` of the yielded object name paths at and below which everything ends with an errno. The server is
a process of its own (`python -m tests.fusefs`); it speaks the kernel's protocol over /dev/fuse.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import stat
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LOOKUP, FORGET, GETATTR, READLINK, OPEN, READ, STATFS, RELEASE = 1, 2, 3, 5, 14, 15, 17, 18
FLUSH, INIT, OPENDIR, READDIR, RELEASEDIR, INTERRUPT, DESTROY, BATCH_FORGET = 25, 26, 27, 28, 29, 36, 38, 42

HEADER = struct.Struct("<IIQQIIIHH")
ANSWER = struct.Struct("<IiQ")
ATTRIBUTES = struct.Struct("<6Q10I")
ENTRY = struct.Struct("<4QII")
BUFFER = 1 << 17
NOSUID_NODEV = 6


class Faulty:
    """A mounted one. Setting `faults` takes effect at once."""

    def __init__(self, point: Path, file: Path) -> None:
        self.point = point
        self._file = file
        self.fail({})

    def fail(self, faults: dict[str, int]) -> None:
        """From now on: path → errno. No others fail."""
        beside = self._file.with_suffix(".new")
        beside.write_text(json.dumps(faults))
        beside.rename(self._file)


@contextmanager
def faulty(backing: Path, point: Path) -> Iterator[Faulty]:
    """Show `backing` at `point` until the end."""
    point.mkdir(exist_ok=True)
    fs = Faulty(point, point.with_name(f"{point.name}.faults"))
    command = [sys.executable, "-m", "tests.fusefs", str(backing), str(point), str(fs._file)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert server.stdout is not None
    try:
        assert server.stdout.readline() == b"mounted\n"
        yield fs
    finally:
        # Asked of a mount whose server is dead, `os.path.ismount` says no.
        while subprocess.run(["umount", "-l", point], capture_output=True).returncode == 0:
            pass
        server.kill()
        server.wait()
        server.stdout.close()


class Server:
    """Answers the kernel. One request at a time."""

    def __init__(self, backing: str, faults: Path, fd: int) -> None:
        self.backing = backing
        self.faults = faults
        self.fd = fd
        self.paths = {1: ""}
        self.nodes = {"": 1}
        self.open: dict[int, int] = {}

    def serve(self) -> None:
        while True:
            try:
                request = os.read(self.fd, BUFFER + 4096)
            except OSError as error:
                if error.errno == errno.ENODEV:
                    return  # unmounted
                if error.errno in (errno.EINTR, errno.ENOENT):
                    continue
                raise
            _, operation, unique, node, *_ = HEADER.unpack_from(request)
            if operation in (FORGET, BATCH_FORGET, INTERRUPT):
                continue
            try:
                number, body = 0, self.answer(operation, node, request[HEADER.size :])
            except OSError as error:
                number, body = error.errno or errno.EIO, b""
            os.write(self.fd, ANSWER.pack(ANSWER.size + len(body), -number, unique) + body)
            if operation == DESTROY:
                return

    def answer(self, operation: int, node: int, body: bytes) -> bytes:
        path = self.paths.get(node, "")
        if operation == INIT:
            return struct.pack("<IIIIHHIIHHI7I", 7, 31, BUFFER, 0, 12, 9, BUFFER, 1, 0, 0, *[0] * 8)
        if operation == LOOKUP:
            return self.look_up(os.path.join(path, os.fsdecode(body.rstrip(b"\0"))))
        if operation == STATFS:
            return struct.pack("<5Q10I", 1000, 1000, 1000, 1000, 1000, 4096, 255, 4096, *[0] * 7)
        if operation in (RELEASE, RELEASEDIR, FLUSH):
            if operation == RELEASE:
                os.close(self.open.pop(struct.unpack_from("<Q", body)[0]))
            return b""
        self.check(path)
        if operation == GETATTR:
            return struct.pack("<QII", 0, 0, 0) + self.attributes(path)
        if operation == READLINK:
            return os.fsencode(os.readlink(self.real(path)))
        if operation == OPENDIR:
            return struct.pack("<QII", 0, 0, 0)
        if operation == OPEN:
            if struct.unpack_from("<I", body)[0] & os.O_ACCMODE != os.O_RDONLY:
                raise OSError(errno.EROFS, "read-only")
            fd = os.open(self.real(path), os.O_RDONLY)
            self.open[fd] = fd
            return struct.pack("<QII", fd, 1, 0)
        if operation in (READ, READDIR):
            handle, offset, size = struct.unpack_from("<QQI", body)
            return os.pread(handle, size, offset) if operation == READ else self.names(path, offset, size)
        raise OSError(errno.ENOSYS, "not here")

    def check(self, path: str) -> None:
        for place, number in json.loads(self.faults.read_text()).items():
            if path == place or path.startswith(place + "/"):
                raise OSError(number, "asked for")

    def real(self, path: str) -> str:
        return os.path.join(self.backing, path) if path else self.backing

    def look_up(self, path: str) -> bytes:
        self.check(path)
        attributes = self.attributes(path)
        node = self.nodes.setdefault(path, len(self.nodes) + 1)
        self.paths[node] = path
        return ENTRY.pack(node, 0, 0, 0, 0, 0) + attributes

    def attributes(self, path: str) -> bytes:
        s = os.lstat(self.real(path))
        times = [(ns // 10**9, ns % 10**9) for ns in (s.st_atime_ns, s.st_mtime_ns, s.st_ctime_ns)]
        return ATTRIBUTES.pack(
            s.st_ino, s.st_size, s.st_blocks, *(second for second, _ in times), *(rest for _, rest in times),
            s.st_mode, s.st_nlink, s.st_uid, s.st_gid, 0, 4096, 0,
        )  # fmt: skip

    def names(self, path: str, offset: int, size: int) -> bytes:
        found = b""
        for index, entry in enumerate(sorted(os.scandir(self.real(path)), key=lambda entry: entry.name)):
            if index < offset:
                continue
            name = os.fsencode(entry.name)
            kind = stat.S_IFMT(entry.stat(follow_symlinks=False).st_mode) >> 12
            record = struct.pack("<QQII", entry.inode(), index + 1, len(name), kind) + name
            record += b"\0" * (-len(record) % 8)
            if len(found) + len(record) > size:
                break
            found += record
        return found


def main(backing: str, point: str, faults: str) -> None:
    fd = os.open("/dev/fuse", os.O_RDWR)
    options = f"fd={fd},rootmode=40000,user_id={os.getuid()},group_id={os.getgid()},allow_other"
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"faulty", os.fsencode(point), b"fuse.faulty", NOSUID_NODEV, options.encode()) != 0:
        raise OSError(ctypes.get_errno(), "mount")
    print("mounted", flush=True)
    Server(backing, Path(faults), fd).serve()


if __name__ == "__main__":
    main(*sys.argv[1:])
