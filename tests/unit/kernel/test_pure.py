"""The pure body where the system refuses something: what no filesystem at hand does."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from syncd.kernel.contract import Status
from syncd.kernel.pure import PureKernel, beside, files, inplace, take
from syncd.kernel.pure.aside import numbered
from syncd.kernel.pure.files import clamp, fingerprint
from tests import trees
from tests.conformance.scene import MIRROR, Scene, ends

BIG = b"big" * 100_000


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Scene]:
    scene = Scene(PureKernel(), tmp_path, {"f": b"old", "big": BIG})
    scene.cycle()
    yield scene
    scene.close()


def refuse(number: int) -> Any:
    def call(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    return call


# --- leases -------------------------------------------------------------------------------------------


@pytest.fixture
def _no_leases(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files.fcntl, "fcntl", refuse(errno.EINVAL))


@pytest.mark.usefixtures("_no_leases")
def test_without_leases_two_reads_have_to_agree(made: Scene) -> None:
    trees.build(made.source, {"f": b"new", "big": BIG[::-1]})
    made.cycle()
    assert made.same_content()
    assert made.quiet()


@pytest.mark.usefixtures("_no_leases")
@pytest.mark.parametrize("name", ["f", "big"])
def test_without_leases_a_file_that_changes_between_two_reads_is_busy(
    made: Scene, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    trees.build(made.source, {name: b"n" * 150_000 if name == "big" else b"new"})
    diff = made.look()

    before = trees.read(made.target)
    with monkeypatch.context() as patch:
        original = files.hash_file
        patch.setattr(files, "hash_file", lambda fd, control: write_and_hash_with(original, made, name, fd, control))
        outcomes = made.place(diff)
    assert ends(outcomes) == {name.encode(): Status.BUSY}
    assert trees.read(made.target) == before
    made.tidy()


def write_and_hash_with(original: Any, made: Scene, name: str, fd: int, control: Any) -> bytes:
    with (made.source / name).open("ab") as file:
        file.write(b"more")
    digest: bytes = original(fd, control)
    return digest


@pytest.mark.usefixtures("_no_leases")
@pytest.mark.parametrize("write", ["auto", "inplace"])
def test_without_leases_nothing_is_written_in_place(made: Scene, write: str) -> None:
    before = (made.target / "f").stat().st_ino
    (made.source / "f").write_bytes(b"new")
    made.cycle(write=write)
    assert (made.target / "f").stat().st_ino != before
    assert made.same_content()


# --- writes cut short ---------------------------------------------------------------------------------


def short(fd: int, data: bytes, offset: int) -> int:
    return os.write(fd, data[:2])


def test_a_short_write_is_finished_beside(made: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    (made.source / "f").write_bytes(b"newer")
    diff = made.look()
    with monkeypatch.context() as patch:
        patch.setattr(inplace, "overwrite", lambda _call, fd, _taken: short(fd, b"ne", 0) and refuse(errno.ENOSPC)())
        outcomes = made.place(diff)
    assert ends(outcomes) == {b"f": Status.DONE}
    assert made.same_content()
    assert made.quiet()


def test_what_cannot_be_finished_is_torn(made: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    (made.source / "f").write_bytes(b"newer")
    diff = made.look()
    with monkeypatch.context() as patch:
        patch.setattr(inplace, "overwrite", lambda _call, fd, _taken: short(fd, b"ne", 0) and refuse(errno.ENOSPC)())
        patch.setattr(inplace, "put_beside", refuse(errno.ENOSPC))
        outcomes = made.place(diff)
    assert [(t.path, t.errno, t.op) for t in outcomes.troubles] == [(b"f", errno.ENOSPC, "torn")]
    made.cycle(verbs=MIRROR)
    assert made.same_content()


# --- calls that a filesystem lacks --------------------------------------------------------------------


@pytest.mark.parametrize("number", [errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP])
def test_without_hard_links_the_old_file_is_moved_away_first(
    made: Scene, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    trees.build(made.source, {"f": b"new", "big": BIG[::-1]})
    diff = made.look()
    monkeypatch.setattr(beside.os, "link", refuse(number))
    outcomes = made.place(diff, write="replace")
    assert set(ends(outcomes).values()) == {Status.DONE}
    assert made.same_content()
    assert outcomes.aside == []
    assert made.quiet()


def test_without_hard_links_a_changed_file_gets_its_name_back(made: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    (made.source / "f").write_bytes(b"new")
    diff = made.look()

    def write_then_refuse(*_: object, **__: object) -> None:
        (made.target / "f").write_bytes(b"the container's")
        raise OSError(errno.EPERM, "refused")

    monkeypatch.setattr(beside.os, "link", write_then_refuse)
    outcomes = made.place(diff, write="replace")
    assert ends(outcomes) == {b"f": Status.CHANGED}
    assert (made.target / "f").read_bytes() == b"the container's"
    made.tidy()


def test_a_write_between_link_and_rename_is_set_aside(made: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    (made.source / "f").write_bytes(b"new")
    diff = made.look()
    rename = os.rename

    def write_then_rename(*arguments: Any, **more: Any) -> None:
        (made.target / "f").write_bytes(b"the container's")
        rename(*arguments, **more)

    monkeypatch.setattr(beside.os, "rename", write_then_rename)
    outcomes = made.place(diff, write="replace")
    assert ends(outcomes) == {b"f": Status.DONE}
    assert made.same_content()
    assert made.kept() == [b"the container's"]


def test_a_write_as_soon_as_the_new_name_stands_is_noticed(made: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    (made.source / "f").write_bytes(b"new")
    diff = made.look()
    rename = os.rename

    def rename_then_write(*arguments: Any, **more: Any) -> None:
        rename(*arguments, **more)
        (made.target / "f").write_bytes(b"bad")

    with monkeypatch.context() as patch:
        patch.setattr(beside.os, "rename", rename_then_write)
        made.place(diff, write="replace")
    assert made.cycle(verbs=MIRROR).aside
    assert made.same_content()
    assert made.kept() == [b"bad"]


def test_a_write_hidden_by_the_set_time_is_noticed(made: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    (made.source / "f").write_bytes(b"new")
    diff = made.look()
    utime = os.utime

    def write_then_utime(*arguments: Any, **more: Any) -> None:
        (made.target / "f").write_bytes(b"bad")
        utime(*arguments, **more)

    with monkeypatch.context() as patch:
        patch.setattr(inplace.os, "utime", write_then_utime)
        made.place(diff)
    assert made.cycle(verbs=MIRROR).aside
    assert made.same_content()
    assert made.kept() == [b"bad"]


def test_a_write_hidden_by_a_record_is_noticed(made: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    os.utime(made.source / "f", ns=(5, 5))
    diff = made.look(exact=True)
    utime = os.utime

    def write_then_utime(*arguments: Any, **more: Any) -> None:
        (made.target / "f").write_bytes(b"bad")
        utime(*arguments, **more)

    with monkeypatch.context() as patch:
        patch.setattr(inplace.os, "utime", write_then_utime)
        outcomes = made.place(diff)
    assert ends(outcomes) == {b"f": Status.CHANGED}
    assert made.cycle(verbs=MIRROR).aside
    assert made.kept() == [b"bad"]


@pytest.mark.parametrize("lacking", ["reflink", "copy_file_range", "holes"])
def test_copies_without_help_from_the_filesystem(made: Scene, monkeypatch: pytest.MonkeyPatch, lacking: str) -> None:
    monkeypatch.setattr(take.fcntl, "ioctl", refuse(errno.EOPNOTSUPP))
    if lacking != "reflink":
        monkeypatch.setattr(take.os, "copy_file_range", refuse(errno.EXDEV))
    if lacking == "holes":
        monkeypatch.setattr(take.os, "lseek", refuse(errno.EINVAL))
    (made.source / "big").write_bytes(BIG[::-1])
    made.cycle()
    assert made.same_content()
    assert made.quiet()


def test_an_owner_this_namespace_lacks_matters_only_when_asked_for(
    made: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.chown(made.source / "f", 4242, 4242)
    (made.source / "f").write_bytes(b"new")
    with monkeypatch.context() as patch:
        patch.setattr(beside.os, "chown", refuse(errno.EINVAL))
        assert ends(made.cycle()) == {b"f": Status.DONE}
        (made.source / "f").write_bytes(b"newest")
        assert ends(made.cycle(owner=(7, 7))) == {b"f": Status.FAILED}
    assert (made.target / "f").read_bytes() == b"new"
    made.tidy()


# --- small things -------------------------------------------------------------------------------------


def test_times_are_cut_to_64_bits() -> None:
    assert clamp(1 << 70) == (1 << 63) - 1
    assert clamp(-(1 << 70)) == -(1 << 63)


def test_a_fingerprint_has_no_device(tmp_path: Path) -> None:
    state = tmp_path.stat()
    assert fingerprint(state) == (state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino, state.st_mode)


def test_numbered_names_stay_short_enough() -> None:
    names = numbered(b"n" * 255)
    first, second = next(names), next(names)
    assert first == b"n" * 255
    assert second == b"n" * 253 + b".1"
