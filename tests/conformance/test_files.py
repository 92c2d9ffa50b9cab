"""State files: each body reads the other's, and a damaged one gives a prefix or nothing, never an error."""

from __future__ import annotations

import os
import random
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import xxhash

from syncd.kernel.choose import load
from syncd.kernel.contract import Intent, Kernel
from syncd.model.entry import Agreed, Fingerprint, Kind
from tests.conftest import KERNELS
from tests.trees import agreed

MAGIC = b"SYNCDB1\n"
NONE = Fingerprint(0, 0, 0, 0, 0)
EXTREME = Fingerprint((1 << 64) - 1, -(1 << 63), (1 << 63) - 1, (1 << 64) - 1, (1 << 32) - 1)

ROWS: list[tuple[bytes, Agreed]] = [
    (b"a", agreed(Kind.DIR, mount=True)),
    (b"a/\xff\n", agreed(shared=True, digest=bytes(range(16)))),
    (b"a/b", agreed(Kind.LINK, link=b"")),
    (b"a/b-", agreed(source=EXTREME, target=EXTREME, mtime_ns=-1, mode=0o1777)),
    (b"a.txt", agreed()),
    (b"n" * 60, agreed(Kind.LINK, link=b"\xfe" * 100)),
    (b"z" * 50 + b"/" + b"z" * 50, agreed(digest=bytes(16))),
]


# --- an independent reading of the format -------------------------------------------------------------


def decode_frames(data: bytes) -> list[tuple[bytes, bytes]]:
    assert data[:8] == MAGIC
    at, frames = 8, []
    while at < len(data):
        length, check = struct.unpack_from("<IQ", data, at)
        payload = data[at + 12 : at + 12 + length]
        assert len(payload) == length
        assert check == xxhash.xxh3_64(payload).intdigest()
        frames.append((payload[:1], payload[1:]))
        at += 12 + length
    return frames


def decode_rows(body: bytes) -> Iterator[tuple[Any, ...]]:
    at = 0
    while at < len(body):
        (length,) = struct.unpack_from("<I", body, at)
        path = body[at + 4 : at + 4 + length]
        at += 4 + length
        fixed = struct.unpack_from("<BBHq16sQqqQIQqqQI", body, at)
        at += 1 + 1 + 2 + 8 + 16 + 2 * (8 + 8 + 8 + 8 + 4)
        (length,) = struct.unpack_from("<I", body, at)
        yield path, *fixed, body[at + 4 : at + 4 + length]
        at += 4 + length


def as_row(path: bytes, row: Agreed | None) -> tuple[Any, ...]:
    if row is None:
        return path, 0, 0, 0, 0, bytes(16), *NONE, *NONE, b""
    flags = 1 * row.shared + 2 * row.mount
    return (
        path,
        row.kind,
        flags,
        row.mode,
        row.mtime_ns,
        row.digest or bytes(16),
        *row.source,
        *row.target,
        row.link or b"",
    )


# --- helpers ------------------------------------------------------------------------------------------


class Files:
    """State files in a directory."""

    def __init__(self, top: Path) -> None:
        self.top = top
        self.open: list[int] = []

    def fd(self, name: str, data: bytes | None = None) -> int:
        """The file opened for appending; with `data`, it holds just that."""
        if data is not None:
            (self.top / name).write_bytes(data)
        self.open.append(os.open(self.top / name, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600))
        return self.open[-1]

    def data(self, name: str) -> bytes:
        return (self.top / name).read_bytes()


@pytest.fixture
def files(tmp_path: Path) -> Iterator[Files]:
    made = Files(tmp_path)
    yield made
    for fd in made.open:
        os.close(fd)


def base_of(kernel: Kernel, files: Files, rows: Iterable[tuple[bytes, Agreed | None]]) -> Any:
    return kernel.settle(kernel.empty_base(), list(rows), files.fd("scratch", b""))


def checkpoint(kernel: Kernel, files: Files, rows: Any = ROWS, notes: tuple[bytes, ...] = (b"note", b"")) -> bytes:
    kernel.save_tree(base_of(kernel, files, rows), notes, files.fd("checkpoint", b""))
    return files.data("checkpoint")


def loaded(kernel: Kernel, files: Files, *contents: bytes) -> Any:
    return kernel.load_tree([files.fd(f"part{number}", data) for number, data in enumerate(contents)])


def rows(base: Any) -> list[tuple[bytes, Agreed]]:
    return list(base.rows())


# --- the format ---------------------------------------------------------------------------------------


def test_a_checkpoint_is_written_as_documented(kernel: Kernel, files: Files) -> None:
    frames = decode_frames(checkpoint(kernel, files))
    assert frames[:2] == [(b"N", b"note"), (b"N", b"")]
    assert [kind for kind, _ in frames[2:]] == [b"O", b"E"]
    assert list(decode_rows(frames[2][1])) == [
        as_row(path, row) for path, row in sorted(ROWS, key=lambda r: r[0].split(b"/"))
    ]
    assert frames[-1][1] == struct.pack("<Q", len(ROWS))


def test_an_empty_checkpoint(kernel: Kernel, files: Files) -> None:
    data = checkpoint(kernel, files, (), ())
    assert [kind for kind, _ in decode_frames(data) if kind != b"O"] == [b"E"]
    found = loaded(kernel, files, data)
    assert (len(found.base), found.notes, found.intents, found.whole) == (0, [], [], True)


def test_frames_hold_at_most_4096_rows(kernel: Kernel, files: Files) -> None:
    many = [(b"%05d" % number, agreed()) for number in range(4096 * 2 + 1)]
    data = checkpoint(kernel, files, many)
    counts = [len(list(decode_rows(body))) for kind, body in decode_frames(data) if kind == b"O"]
    assert max(counts) <= 4096
    assert sum(counts) == len(many)
    assert rows(loaded(kernel, files, data).base) == many


def test_a_journal_is_written_as_documented(kernel: Kernel, files: Files) -> None:
    journal = files.fd("journal")
    kernel.note(journal, b"one")
    base = kernel.settle(kernel.empty_base(), [(b"d", agreed(Kind.DIR)), (b"d/f", agreed()), (b"old", None)], journal)
    kernel.settle(base, [(b"d", None)], journal)
    kernel.note(journal, b"two")
    frames = decode_frames(files.data("journal"))
    assert [kind for kind, _ in frames] == [b"N", b"O", b"O", b"N"]
    assert (frames[0][1], frames[3][1]) == (b"one", b"two")
    assert list(decode_rows(frames[1][1])) == [
        as_row(b"d", agreed(Kind.DIR)),
        as_row(b"d/f", agreed()),
        as_row(b"old", None),
    ]
    assert list(decode_rows(frames[2][1])) == [as_row(b"d", None)]


def test_place_writes_intents_and_outcomes(scene: Any) -> None:
    from tests.trees import Link

    made = scene({"f": b"1", "l": Link("f"), "d": {"x": b"2"}, "gone": b"3"})
    made.cycle()
    (made.source / "gone").unlink()
    (made.source / "f").write_bytes(b"4")
    made.cycle()
    frames = decode_frames(made.journal_path.read_bytes())
    assert [kind for kind, _ in frames] == [b"I", b"O"] * 2
    intents = {row[0]: row for row in decode_rows(frames[0][1])}
    assert set(intents) == {b"d", b"d/x", b"f", b"gone", b"l"}
    for path, kind, digest, link in (
        (b"f", Kind.FILE, xxhash.xxh3_128(b"1").digest(), b""),
        (b"d", Kind.DIR, bytes(16), b""),
        (b"l", Kind.LINK, bytes(16), b"f"),
    ):
        row = intents[path]
        assert (row[1], row[5], row[-1]) == (kind, digest, link)
        assert row[4] == 0
        assert set(row[6:16]) == {0}
    assert list(decode_rows(frames[2][1])) == [
        (b"f", 1, *intents[b"f"][2:5], xxhash.xxh3_128(b"4").digest(), *[0] * 10, b""),
        as_row(b"gone", None),
    ]
    outcomes = list(decode_rows(frames[3][1]))
    assert outcomes == [as_row(b"f", made.base.get(b"f")), as_row(b"gone", None)]
    found = made.kernel.load_tree([empty_checkpoint(made), made.journal])
    assert rows(found.base) == rows(made.base)
    assert found.intents == []


def empty_checkpoint(made: Any) -> int:
    fd = os.open(made.journal_path.parent / "empty", os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    made.kernel.save_tree(made.kernel.empty_base(), [], fd)
    return fd


# --- there and back, over both bodies -----------------------------------------------------------------


@pytest.mark.parametrize("writer", KERNELS)
def test_each_body_reads_the_others_files(kernel: Kernel, files: Files, writer: str) -> None:
    other = load(writer)
    data = checkpoint(other, files)
    journal = files.fd("journal")
    other.note(journal, b"later")
    other.settle(base_of(other, files, ROWS), [(b"a", None), (b"new", agreed())], journal)
    found = loaded(kernel, files, data, files.data("journal"))
    kept = [(path, row) for path, row in ROWS if not path.startswith((b"a/",)) and path != b"a"]
    expected = sorted([*kept, (b"new", agreed())], key=lambda row: row[0].split(b"/"))
    assert rows(found.base) == expected
    assert len(found.base) == len(expected)
    assert found.notes == [b"note", b"", b"later"]
    assert (found.intents, found.whole) == ([], True)
    again = checkpoint(kernel, files, expected)
    assert again == checkpoint(other, files, expected)


def test_former_rows_are_all_that_were_set_and_are_gone(kernel: Kernel, files: Files) -> None:
    first, second, third = (agreed(mtime_ns=n) for n in (1, 2, 3))
    start = checkpoint(kernel, files, [(b"gone", first), (b"kept", first)])
    lines = [
        frame(b"O", row_bytes(as_row(b"gone", second))),
        frame(b"I", row_bytes(as_row(b"gone", third))),
        frame(b"O", row_bytes(as_row(b"kept", second)) + row_bytes(as_row(b"d/below", third))),
        frame(b"O", row_bytes(as_row(b"gone", None)) + row_bytes(as_row(b"d", None))),
    ]
    base = loaded(kernel, files, start, MAGIC + b"".join(lines)).base
    expected = [(b"gone", first), (b"gone", second), (b"d/below", third)]
    fds = [files.fd("one", start), files.fd("two", MAGIC + b"".join(lines))]
    assert kernel.former(fds, base) == expected
    cut = files.fd("cut", start[:-1])  # a checkpoint without its end
    torn = files.fd("torn", MAGIC + lines[0] + lines[2][:-1])
    assert kernel.former([cut, torn, files.fd("empty"), fds[1]], base) == [expected[0], expected[1], *expected[1:]]
    assert kernel.former([], base) == []


def test_the_roots_row_is_kept_but_not_counted(kernel: Kernel, files: Files) -> None:
    root = agreed(Kind.DIR)
    data = checkpoint(kernel, files, [(b"", root), *ROWS])
    assert sum(len(list(decode_rows(body))) for kind, body in decode_frames(data) if kind == b"O") == len(ROWS) + 1
    assert decode_frames(data)[-1] == (b"E", struct.pack("<Q", len(ROWS) + 1))
    found = loaded(kernel, files, data)
    assert found.whole
    assert found.base.get(b"") == root
    assert len(found.base) == len(ROWS)
    assert b"" not in dict(rows(found.base))


def test_long_names_and_links(kernel: Kernel, files: Files) -> None:
    long = [(b"/".join([b"d" * 255] * 20), agreed()), (b"n" * 255, agreed(Kind.LINK, link=b"\xfe" * 4095))]
    assert rows(loaded(kernel, files, checkpoint(kernel, files, long)).base) == long


def test_rows_of_a_baseline(kernel: Kernel, files: Files) -> None:
    base = base_of(kernel, files, ROWS)
    assert len(base) == len(ROWS)
    assert rows(base) == sorted(ROWS, key=lambda row: row[0].split(b"/"))
    assert [path for path, _ in base.rows(b"a")] == [b"a/b", b"a/b-", b"a/\xff\n"]
    assert base.get(b"a/b") == dict(ROWS)[b"a/b"]
    assert base.get(b"nowhere") is base.get(b"a/b/c") is None
    assert base.shared() == [b"a/\xff\n"]


def test_dropping_a_directory_drops_what_it_holds(kernel: Kernel, files: Files) -> None:
    base = base_of(kernel, files, [*ROWS, (b"a", None)])
    assert [path for path, _ in rows(base)] == [b"a.txt", b"n" * 60, b"z" * 50 + b"/" + b"z" * 50]
    assert len(base) == 3


def test_what_is_no_directory_holds_nothing(kernel: Kernel, files: Files) -> None:
    base = base_of(kernel, files, [(b"d", agreed(Kind.DIR)), (b"d/x", agreed()), (b"d", agreed())])
    assert [path for path, _ in rows(base)] == [b"d"]
    data = files.data("scratch")
    found = loaded(kernel, files, checkpoint(kernel, files, ()), data)
    assert [path for path, _ in rows(found.base)] == [b"d"]


# --- intents ------------------------------------------------------------------------------------------


def frame(kind: bytes, body: bytes) -> bytes:
    payload = kind + body
    return struct.pack("<IQ", len(payload), xxhash.xxh3_64(payload).intdigest()) + payload


def row_bytes(row: tuple[Any, ...]) -> bytes:
    path, *fixed, link = row
    head = struct.pack("<I", len(path)) + path + struct.pack("<BBHq16sQqqQIQqqQI", *fixed)
    return head + struct.pack("<I", len(link)) + link


INTENTS = [
    (b"f", agreed(source=NONE, target=NONE)),
    (b"gone", None),
    (b"l", agreed(Kind.LINK, source=NONE, target=NONE)),
]
OPEN = [Intent(b"f", 1, b"d" * 16, None), Intent(b"gone", 0, None, None), Intent(b"l", 3, None, b"text")]


def test_intents_are_open_until_outcomes_follow(kernel: Kernel, files: Files) -> None:
    start = checkpoint(kernel, files, (), ())
    intents = frame(b"I", b"".join(row_bytes(as_row(*each)) for each in INTENTS))
    more = frame(b"I", row_bytes(as_row(b"more", None)))
    outcomes = frame(b"O", row_bytes(as_row(b"f", agreed())))
    note = frame(b"N", b"word")
    found = loaded(kernel, files, start, MAGIC + intents)
    assert (found.intents, found.whole, len(found.base)) == (OPEN, True, 0)
    assert loaded(kernel, files, start, MAGIC + intents + note).intents == OPEN
    assert loaded(kernel, files, start, MAGIC + intents + more).intents == [*OPEN, Intent(b"more", 0, None, None)]
    assert loaded(kernel, files, start, MAGIC + intents, MAGIC + note).intents == OPEN
    found = loaded(kernel, files, start, MAGIC + intents + outcomes)
    assert (found.intents, len(found.base)) == ([], 1)
    assert loaded(kernel, files, start, MAGIC + intents, b"", MAGIC + outcomes).intents == []
    assert loaded(kernel, files, start, MAGIC + intents + frame(b"O", b"")).intents == []


def test_settling_closes_open_intents(kernel: Kernel, files: Files) -> None:
    start = checkpoint(kernel, files, (), ())
    journal = files.fd("journal", MAGIC + frame(b"I", row_bytes(as_row(b"f", None))))
    kernel.settle(kernel.empty_base(), [], journal)
    found = loaded(kernel, files, start, files.data("journal"))
    assert (found.intents, found.whole) == ([], True)


# --- damage -------------------------------------------------------------------------------------------


def state(found: Any) -> tuple[Any, ...]:
    return rows(found.base), found.notes, found.intents


def journal_of(kernel: Kernel, files: Files) -> bytes:
    """A journal with frames of every kind, one for each frame's end."""
    intents = frame(b"I", b"".join(row_bytes(as_row(*each)) for each in INTENTS))
    parts = [MAGIC, frame(b"N", b"note"), intents, frame(b"O", row_bytes(as_row(b"f", agreed())))]
    parts += [frame(b"N", b""), intents, frame(b"O", row_bytes(as_row(b"f", None)) + row_bytes(as_row(b"g", agreed())))]
    return b"".join(parts)


def boundaries(data: bytes) -> list[int]:
    at, ends = 8, [8]
    while at < len(data):
        at += 12 + struct.unpack_from("<I", data, at)[0]
        ends.append(at)
    return ends


def test_a_journal_cut_anywhere_gives_the_frames_before(kernel: Kernel, files: Files) -> None:
    start, data = checkpoint(kernel, files), journal_of(kernel, files)
    ends = boundaries(data)
    states = {end: state(loaded(kernel, files, start, data[:end])) for end in ends}
    checkpoint_fd = files.fd("start", start)
    path = files.top / "cut"
    for length in range(len(data) + 1):
        path.write_bytes(data[:length])
        fd = os.open(path, os.O_RDONLY)
        found = kernel.load_tree([checkpoint_fd, fd])
        os.close(fd)
        assert found.whole == (length == 0 or length in ends)
        assert state(found) == states[max([end for end in ends if end <= length], default=8)]


def test_a_journal_after_a_damaged_one_is_not_read(kernel: Kernel, files: Files) -> None:
    start, data = checkpoint(kernel, files), journal_of(kernel, files)
    found = loaded(kernel, files, start, data[:-1], MAGIC + frame(b"N", b"never"))
    assert not found.whole
    assert b"never" not in found.notes


def test_a_checkpoint_cut_anywhere_is_nothing(kernel: Kernel, files: Files) -> None:
    data = checkpoint(kernel, files)
    journal = files.fd("journal", MAGIC + frame(b"O", row_bytes(as_row(b"late", agreed()))))
    path = files.top / "cut"
    for length in range(len(data)):
        path.write_bytes(data[:length])
        fd = os.open(path, os.O_RDONLY)
        found = kernel.load_tree([fd, journal])
        os.close(fd)
        assert (rows(found.base), found.intents, found.whole) == ([], [], False)


@pytest.mark.parametrize("seed", range(4))
def test_flipped_bits_never_raise_and_never_invent(kernel: Kernel, files: Files, seed: int) -> None:
    start, data = checkpoint(kernel, files), journal_of(kernel, files)
    states = [state(loaded(kernel, files, start, data[:end])) for end in boundaries(data)]
    chance = random.Random(seed)
    start_fd, path = files.fd("start", start), files.top / "flipped"
    for _ in range(100):
        bad = bytearray(data)
        for _ in range(chance.choice((1, 1, 2, 8))):
            bad[chance.randrange(len(bad))] ^= 1 << chance.randrange(8)
        path.write_bytes(bad)
        fd = os.open(path, os.O_RDONLY)
        found = kernel.load_tree([start_fd, fd])
        os.close(fd)
        assert state(found) in states
        assert found.whole == (bytes(bad) == data)
        bad = bytearray(start)
        bad[chance.randrange(len(bad))] ^= 1 << chance.randrange(8)
        path.write_bytes(bad)
        fd = os.open(path, os.O_RDONLY)
        found = kernel.load_tree([fd])
        os.close(fd)
        assert (rows(found.base), found.intents, found.whole) == ([], [], False)


BAD_FRAMES = {
    "an unknown kind": frame(b"X", b""),
    "an empty payload": struct.pack("<IQ", 0, xxhash.xxh3_64(b"").intdigest()),
    "an end in a journal": frame(b"E", struct.pack("<Q", 0)),
    "a row cut off": frame(b"O", row_bytes(as_row(b"x", agreed()))[:-1]),
    "a length beyond the end": frame(b"O", struct.pack("<I", 0xFFFFFFFF) + b"x"),
    "a kind of entry that is none": frame(b"O", row_bytes((b"x", 4, *as_row(b"x", None)[2:]))),
    "a path that leads out": frame(b"O", row_bytes(as_row(b"../x", agreed()))),
    "an absolute path": frame(b"O", row_bytes(as_row(b"/x", agreed()))),
    "an intent that leads out": frame(b"I", row_bytes(as_row(b"a/../../x", None))),
    "a frame as long as can be": struct.pack("<IQ", 0xFFFFFFFF, 0),
}


@pytest.mark.parametrize("bad", BAD_FRAMES)
def test_a_frame_that_says_what_none_says_ends_the_journal(kernel: Kernel, files: Files, bad: str) -> None:
    start = checkpoint(kernel, files)
    good = frame(b"N", b"before")
    found = loaded(kernel, files, start, MAGIC + good + BAD_FRAMES[bad] + frame(b"N", b"after"))
    assert not found.whole
    assert found.notes == [b"note", b"", b"before"]
    assert rows(found.base) == sorted(ROWS, key=lambda row: row[0].split(b"/"))


def test_a_checkpoint_with_something_after_its_end_is_nothing(kernel: Kernel, files: Files) -> None:
    found = loaded(kernel, files, checkpoint(kernel, files) + frame(b"N", b"x"))
    assert (len(found.base), found.whole) == (0, False)


def test_a_checkpoint_with_another_count_is_nothing(kernel: Kernel, files: Files) -> None:
    data = checkpoint(kernel, files)
    data = data[: boundaries(data)[-2]] + frame(b"E", struct.pack("<Q", len(ROWS) + 1))
    found = loaded(kernel, files, data)
    assert (len(found.base), found.whole) == (0, False)


def test_nothing_and_empty_files(kernel: Kernel, files: Files) -> None:
    found = kernel.load_tree([])
    assert (len(found.base), found.notes, found.intents, found.whole) == (0, [], [], True)
    found = loaded(kernel, files, b"")
    assert (len(found.base), found.whole) == (0, False)
    found = loaded(kernel, files, checkpoint(kernel, files), b"", b"")
    assert (len(found.base), found.whole) == (len(ROWS), True)


def test_a_read_that_fails_raises(kernel: Kernel, files: Files) -> None:
    directory = os.open(files.top, os.O_RDONLY)
    try:
        with pytest.raises(IsADirectoryError):
            kernel.load_tree([directory])
    finally:
        os.close(directory)
