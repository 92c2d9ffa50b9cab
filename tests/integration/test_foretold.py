"""What a run finds out only when it gets there, a dry run says before; `verify` and `drift` go by the same words."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.compare import read_tree
from tests.integration.conftest import Place
from tests.integration.watching import environment, run, without_rights

pytestmark = pytest.mark.kernel

KEEP = "keep (holds what is not syncd's)"


def call(place: Place, command: str, *options: str, **more: Any) -> tuple[int, list[str], str]:
    """Exit code, sorted lines and standard error of a command on the pair."""
    done = run(command, str(place.source), str(place.target), *options, env=environment(place.home), **more)
    return done.returncode, sorted(done.stdout.splitlines()), done.stderr


def foretold(place: Place, *options: str) -> set[tuple[str, str]]:
    """What `diff` says of each path. It touches nothing."""
    before = read_tree(place.target)
    code, lines, stderr = call(place, "diff", *options)
    assert code == 0, stderr
    assert read_tree(place.target) == before
    return {(what, path) for what, _, path in (line.rpartition("  ") for line in lines)}


def names(top: Path) -> set[str]:
    return {os.fsdecode(path) for path in read_tree(bytes(top))}


def remade(path: Path, text: str | None = None) -> None:
    """Put a file, or with no text nothing, in the place of whatever stands there."""
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    if text is not None:
        path.write_text(text)


def write(path: Path, text: str = "theirs") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def removed_with_made(source: Path, target: Path) -> None:
    remade(source / "dir")
    write(target / "dir" / "mine")


def removed_with_ignored(source: Path, target: Path) -> None:
    remade(source / "dir")
    write(target / "dir" / "in" / "x.log")


def a_file_now_with_made(source: Path, target: Path) -> None:
    remade(source / "dir", "a file")
    write(target / "dir" / "in" / "mine")


def a_file_now(source: Path, _: Path) -> None:
    remade(source / "dir", "a file")


def replaced_on_the_way(source: Path, target: Path) -> None:
    remade(target / "dir", "the container's")
    write(source / "dir" / "b.txt", "changed")


def removed_on_the_way(source: Path, target: Path) -> None:
    remade(target / "dir")
    write(source / "dir" / "b.txt", "changed")


def made_with_ignored(_: Path, target: Path) -> None:
    write(target / "new" / "x.log")
    write(target / "new" / "c")
    write(target / "whole" / "c")


CASES: list[tuple[Callable[[Path, Path], None], str, set[tuple[str, str]]]] = [
    (
        removed_with_made,
        "keep",
        {
            (KEEP, "dir"),
            ("remove", "dir/b.txt"),
            ("remove", "dir/in"),
            ("remove", "dir/in/d"),
            ("drift: made", "dir/mine"),
        },
    ),
    (
        removed_with_made,
        "mirror",
        {
            ("remove", "dir"),
            ("remove", "dir/b.txt"),
            ("remove", "dir/in"),
            ("remove", "dir/in/d"),
            ("set aside", "dir/mine"),
        },
    ),
    (removed_with_ignored, "keep", {(KEEP, "dir"), ("remove", "dir/b.txt"), (KEEP, "dir/in"), ("remove", "dir/in/d")}),
    (
        removed_with_ignored,
        "mirror",
        {(KEEP, "dir"), ("remove", "dir/b.txt"), (KEEP, "dir/in"), ("remove", "dir/in/d")},
    ),
    (
        a_file_now_with_made,
        "keep",
        {
            ("set aside and put", "dir"),
            ("remove", "dir/b.txt"),
            ("set aside", "dir/in"),
            ("remove", "dir/in/d"),
            ("set aside", "dir/in/mine"),
        },
    ),
    (a_file_now, "keep", {("put", "dir"), ("remove", "dir/b.txt"), ("remove", "dir/in"), ("remove", "dir/in/d")}),
    (
        replaced_on_the_way,
        "keep",
        {
            ("set aside and put", "dir"),
            ("put", "dir/b.txt"),
            ("drift: lost", "dir/in"),
            ("drift: lost", "dir/in/d"),
        },
    ),
    (
        removed_on_the_way,
        "keep",
        {("put", "dir"), ("put", "dir/b.txt"), ("drift: lost", "dir/in"), ("drift: lost", "dir/in/d")},
    ),
    (
        made_with_ignored,
        "mirror",
        {("drift: made", "new"), ("set aside", "new/c"), ("set aside", "whole"), ("set aside", "whole/c")},
    ),
]


@pytest.mark.parametrize(("edit", "drift", "want"), CASES, ids=lambda each: getattr(each, "__name__", None))
def test_a_run_does_what_is_foretold(
    place: Place, edit: Callable[[Path, Path], None], drift: str, want: set[tuple[str, str]]
) -> None:
    write(place.source / "dir" / "in" / "d", "d")
    options = ("--ignore", "*.log", "--drift", drift)
    assert call(place, "sync", *options)[0] == 0
    edit(place.source, place.target)
    told = foretold(place, *options)
    assert told == want
    before = names(place.target)
    code, (record,), stderr = call(place, "sync", "--json", *options)
    assert code == 0, stderr
    after = names(place.target)
    aside = {path for what, path in told if what.startswith("set aside")}
    assert {each["path"] for each in json.loads(record)["set_aside"]} <= aside
    assert bool(json.loads(record)["set_aside"]) == bool(aside)
    leaves = {path for what, path in told if what in ("remove", "set aside")}
    assert before - after == leaves
    assert {path for what, path in told if what in (KEEP, "drift: made")} <= after
    assert {path for what, path in told if what.endswith("put")} <= after & names(place.source)
    assert not after & {path for what, path in told if what == "drift: lost"}


@pytest.fixture
def unread(place: Place) -> Place:
    """A pair in sync, and a new file in the source that its user may not read."""
    assert call(place, "sync")[0] == 0
    write(place.source / "dir" / "new", "new")
    (place.source / "dir" / "new").chmod(0)
    return place


@pytest.mark.skipif(os.geteuid() == 0 and shutil.which("setpriv") is None, reason="needs setpriv to drop root")
def test_a_file_that_cannot_be_read_is_foretold(unread: Place) -> None:
    prefix = without_rights()
    code, lines, stderr = call(unread, "diff", prefix=prefix)
    assert (code, lines) == (0, ["cannot read  dir/new"])
    assert stderr.startswith("0 put, 0 remove, 0 set aside and put, 1 cannot read; 0 drifted")
    code, lines, _ = call(unread, "verify", prefix=prefix)
    assert (code, lines) == (3, ["unreadable  dir/new"])
    code, _, stderr = call(unread, "sync", prefix=prefix)
    assert (code, "dir/new: read failed on the source (EACCES)" in stderr) == (3, True)


def verified(place: Place, *options: str) -> tuple[int, dict[str, Any]]:
    code, (line,), _ = call(place, "verify", "--json", *options)
    groups = {name: [each["path"] for each in value] for name, value in json.loads(line).items() if type(value) is list}
    assert json.loads(line)["equal"] == (code == 0)
    return code, {name: paths for name, paths in groups.items() if paths}


@pytest.mark.parametrize("stands", ["nothing", "empty", "another"])
def test_another_target_lacks_everything(place: Place, stands: str) -> None:
    """What was mirrored into the one that is gone, nobody removed from this one."""
    assert call(place, "sync")[0] == 0
    place.target.rename(place.target.with_name("away"))
    want = {"missing": ["a.txt", "dir", "dir/b.txt"]}
    if stands != "nothing":
        place.target.mkdir()
    if stands == "another":
        write(place.target / "a.txt", "other")
        write(place.target / "own")
        want = {"missing": ["dir", "dir/b.txt"], "different": ["a.txt"], "drifted": ["own"]}
    assert verified(place) == (3, want)


def test_a_cleared_target_has_not_drifted(place: Place) -> None:
    """What a sync would put again is missing."""
    for number in range(200):
        write(place.source / f"f{number}", "f")
    assert call(place, "sync")[0] == 0
    (place.target / "f7").write_text("edited")
    shutil.rmtree(place.target / "dir")
    for number in range(200):
        if number != 7:
            (place.target / f"f{number}").unlink()
    write(place.target / ".x")
    assert call(place, "drift")[1] == ["edited  f7", "made  .x"]
    code, groups = verified(place)
    assert (code, len(groups["missing"]), groups["drifted"]) == (3, 201, ["f7", ".x"])
    assert call(place, "sync")[0] == 0
    assert verified(place) == (0, {"drifted": ["f7", ".x"]})


def test_what_the_source_removed_is_left_over(place: Place) -> None:
    """But for a directory that has something of the container's in it."""
    (place.source / "dir" / "in").mkdir()
    assert call(place, "sync")[0] == 0
    shutil.rmtree(place.source / "dir")
    assert verified(place) == (3, {"left_over": ["dir", "dir/b.txt", "dir/in"]})
    write(place.target / "dir" / "mine")
    assert verified(place) == (3, {"left_over": ["dir/b.txt", "dir/in"], "drifted": ["dir", "dir/mine"]})
    assert call(place, "sync")[0] == 0
    assert verified(place) == (0, {"drifted": ["dir", "dir/mine"]})


def test_what_would_be_set_aside_is_drift_until_then(place: Place) -> None:
    assert call(place, "sync")[0] == 0
    a_file_now_with_made(*place[:2])
    assert "made  dir/in/mine" in call(place, "drift")[1]


def test_verify_believes_no_time(place: Place) -> None:
    """The content decides who changed what, also where times and sizes are as they were."""
    write(place.source / "touched", "same")
    assert call(place, "sync")[0] == 0
    for path in (place.source / "a.txt", place.target / "dir" / "b.txt"):
        about = path.stat()
        path.write_text("!")
        os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))
    (place.target / "touched").write_text("other")
    os.utime(place.source / "touched", (1, 1))
    assert verified(place) == (3, {"different": ["a.txt"], "drifted": ["dir/b.txt", "touched"]})


def test_an_approved_run_is_foretold(place: Place) -> None:
    assert call(place, "sync")[0] == 0
    shutil.rmtree(place.source / "dir")
    (place.source / "a.txt").unlink()
    halt = json.loads(call(place, "diff", "--json")[1][0])["halt"]
    assert "would do nothing" in call(place, "sync", "--dry-run", "--approve", "0" * 32)[2]
    assert "would do nothing" not in call(place, "sync", "--dry-run", "--approve", halt["id"])[2]
    assert names(place.target) == {"a.txt", "dir", "dir/b.txt"}
    assert call(place, "sync", "--approve", halt["id"])[0] == 0
