"""Random edits of both sides, cycles, restarts and kills against the table of the design.

After each cycle the target is what the model says, and what the container wrote stands in the target or among
what was set aside. One process does it all, with the real kernel and a real directory; a kill is a child
process that runs the cycle and dies at a named step.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import tempfile
import unittest
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from syncd.control.opening import Opened, open_pair, resolve
from syncd.engine.cycle import cycle
from syncd.kernel.choose import load
from syncd.model.change import Batch
from syncd.model.report import CycleReport
from syncd.model.settings import Settings
from tests.crash.test_kill import STEPS
from tests.property.model import Model, Nodes, above, read

OVERLAYS = (b"ov", b"a/ov")
PATHS = [b"a", b"b", b"a/a", b"a/t.ign", b"a/ov", b"a/a/a", b"a/a/b", b"a/a/t.ign", b"a/ov/a"]
SIZES = [0, 7, 7, 7, 5000, 140_000]
MODES = [0o644, 0o600, 0o755, 0o444]
TRIES = 3  # cycles after which nothing is left to do, whatever a kill left behind

sides = st.sampled_from(["source", "target"])
paths = st.sampled_from(PATHS)


class Mirror(RuleBasedStateMachine):
    """A source, a target that a container writes into, and syncd between them."""

    def __init__(self) -> None:
        super().__init__()
        shared = "/dev/shm"
        self.top = Path(tempfile.mkdtemp(prefix="syncd-test-", dir=shared if os.access(shared, os.W_OK) else None))
        self.kernel = load()
        self.environ = {name: os.environ.get(name) for name in ("XDG_STATE_HOME", "XDG_RUNTIME_DIR")}
        for name in self.environ:
            (self.top / name).mkdir(mode=0o700)
            os.environ[name] = str(self.top / name)
        for side in ("source", "target"):
            (self.top / side).mkdir()
        (self.top / "source" / "always").write_bytes(b"")
        self.agreed: Nodes = {}
        self.touched: set[bytes] = set()
        self.written: set[bytes] = set()  # every content that anybody ever wrote
        self.sources: set[bytes] = {b""}  # contents that once stood in the source
        self.kept: set[bytes] = set()  # contents that were set aside
        self.count = 0
        self.policy = "keep"
        self.opened: Opened | None = None

    def teardown(self) -> None:
        try:
            if self.opened:
                self.opened.close(clean=False)
        finally:
            for name, value in self.environ.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value
            shutil.rmtree(self.top)

    @initialize(policy=st.sampled_from(["keep", "mirror"]), write=st.sampled_from(["auto", "replace", "inplace"]))
    def begin(self, policy: str, write: str) -> None:
        self.policy = policy
        self.settings = Settings(
            b"", b"", ignore=("*.ign",), overlays=OVERLAYS, drift=policy, adopt=True, write=write
        )  # fmt: skip
        self.open()

    def open(self) -> None:
        source, target = (os.fsencode(self.top / side) for side in ("source", "target"))
        self.opened = open_pair(resolve(source, target, self.settings), self.kernel, lambda text: None)

    # --- edits ----------------------------------------------------------------------------------------

    def at(self, side: str, path: bytes) -> bytes | None:
        """The path on disk, if the directory that has to hold it is one; a missing one is made."""
        if side == "source":
            self.touched.update((path, *above(path)))
        whole = os.path.join(os.fsencode(self.top), side.encode(), path)
        holder = os.path.dirname(whole)
        with contextlib.suppress(OSError):
            os.makedirs(holder, exist_ok=True)
        return whole if os.path.isdir(holder) and os.path.realpath(holder) == holder else None

    def body(self, size: int) -> bytes:
        self.count += 1
        body = (b"%06d;" % self.count).ljust(size, b".")[:size] if size else b""
        self.written.add(body)
        return body

    @rule(side=sides, path=paths, size=st.sampled_from(SIZES), beside=st.booleans())
    def write(self, side: str, path: bytes, size: int, beside: bool) -> None:
        whole = self.at(side, path)
        if whole is None or (os.path.lexists(whole) and not is_file(whole)):
            return
        body = self.body(size)
        place = whole + b".ign~" if beside else whole
        with open(place, "wb") as file:
            file.write(body)
        if beside:
            os.rename(place, whole)

    @rule(side=sides, path=paths)
    def remove(self, side: str, path: bytes) -> None:
        whole = self.at(side, path)
        if whole is None or not os.path.lexists(whole):
            return
        if os.path.isdir(whole) and not os.path.islink(whole):
            shutil.rmtree(whole)
        else:
            os.unlink(whole)

    @rule(side=sides, path=paths, kind=st.sampled_from(["dir", "dir", "link", "fifo", "outside"]))
    def make(self, side: str, path: bytes, kind: str) -> None:
        """Make something at a path; what stood there goes: a change of kind."""
        whole = self.at(side, path)
        if whole is None:
            return
        if os.path.lexists(whole):
            self.remove(side, path)
        self.count += 1
        if kind == "dir":
            os.mkdir(whole)
        elif kind == "fifo":
            os.mkfifo(whole)
        else:
            text = b"to-%d" % self.count if kind == "link" else os.fsencode(self.top)
            self.written.add(text)
            os.symlink(text, whole)

    @rule(side=sides, path=paths, mode=st.sampled_from(MODES))
    def chmod(self, side: str, path: bytes, mode: int) -> None:
        whole = self.at(side, path)
        if whole is not None and os.path.lexists(whole) and not os.path.islink(whole):
            os.chmod(whole, mode | (0o700 if os.path.isdir(whole) else 0))

    @rule(side=sides, path=paths, time=st.integers(0, 1 << 33))
    def touch(self, side: str, path: bytes, time: int) -> None:
        whole = self.at(side, path)
        if whole is not None and os.path.lexists(whole):
            os.utime(whole, ns=(time, time * 10**9 + 1), follow_symlinks=False)

    @rule(side=sides, old=paths, new=paths)
    def move(self, side: str, old: bytes, new: bytes) -> None:
        start, end = self.at(side, old), self.at(side, new)
        if start is None or end is None or not os.path.lexists(start) or new.startswith(old + b"/"):
            return
        try:
            os.rename(start, end)
        except OSError:
            return  # over a directory that is not empty, or of another kind

    @rule(side=sides, old=paths, new=paths)
    def link(self, side: str, old: bytes, new: bytes) -> None:
        start, end = self.at(side, old), self.at(side, new)
        if start and end and is_file(start) and not os.path.lexists(end):
            os.link(start, end)

    @rule(path=paths, into=sides)
    def copy(self, path: bytes, into: str) -> None:
        """Both sides come to the same content by themselves."""
        start, end = self.at("source" if into == "target" else "target", path), self.at(into, path)
        if start and end and is_file(start) and (is_file(end) or not os.path.lexists(end)):
            shutil.copyfile(start, end)

    # --- syncd ----------------------------------------------------------------------------------------

    def expect(self, places: set[bytes] | None) -> Model:
        source, target = read(str(self.top / "source")), read(str(self.top / "target"))
        self.sources |= {node.body for node in source.values()}
        return Model(source, target, dict(self.agreed), self.policy, b".ign", OVERLAYS)

    def run(self, batch: Batch) -> CycleReport:
        assert self.opened
        done = cycle(self.opened.pair, batch)
        assert done.halt is None
        assert not done.stopped
        return done

    def check(self, model: Model, before: Nodes) -> None:
        """The target is what the model says, and every content in it is still somewhere."""
        after = read(str(self.top / "target"))
        wrong = {
            path: (model.target.get(path), after.get(path))
            for path in model.target.keys() | after.keys()
            if model.target.get(path) != after.get(path)
        }
        assert not wrong, f"(expected, found): {_short(wrong)}"
        aside = read_aside(self.top)
        mine = {node.body for node in before.values()} - self.sources
        assert not mine - aside - {node.body for node in after.values()}, "a container's content is lost"
        assert self.kept <= aside, "what was set aside is gone"
        assert aside <= self.written | self.sources | {os.fsencode(self.top)}, "a content that nobody wrote"
        left = [path.name for path in self.top.glob("XDG_STATE_HOME/**/staging/*") if path.name != "conflicts"]
        assert not left, "temporary files are left"
        self.kept = aside
        self.agreed = model.agreed

    @rule()
    def full(self) -> None:
        model = self.expect(None)
        before = dict(model.target)
        model.cycle()
        done = self.run(Batch(everything=True))
        self.touched.clear()
        self.check(model, before)
        assert not done.again
        assert {problem.path for problem in done.problems} == model.refused

    @precondition(lambda self: self.touched)
    @rule()
    def partial(self) -> None:
        """A cycle over the paths that were edited, as a watcher would name them."""
        model = self.expect(self.touched)
        before = dict(model.target)
        model.cycle(self.touched)
        done = self.run(Batch(frozenset(self.touched), deep=frozenset(self.touched)))
        self.touched.clear()
        self.check(model, before)
        assert not done.again
        assert {problem.path for problem in done.problems} == model.refused

    @rule(clean=st.booleans())
    def restart(self, clean: bool) -> None:
        assert self.opened
        self.opened.close(clean=clean)
        self.open()
        model = self.expect(None)
        self.check(model, model.target)

    @rule(step=st.sampled_from(STEPS), number=st.integers(1, 4))
    def kill(self, step: str, number: int) -> None:
        """Die at a step of a full cycle, start anew, and come to the same end."""
        assert self.opened
        model = self.expect(None)
        before = dict(model.target)
        child = os.fork()
        if child == 0:
            code = 1
            try:
                os.environ["SYNCD_CRASH_AT"] = f"{step}:{number}"
                self.run(Batch(everything=True))
                code = 0
            finally:
                os._exit(code)
        _, status = os.waitpid(child, 0)
        assert status in (0, signal.SIGKILL), "the child failed by itself"
        self.opened.close(clean=False)
        self.open()
        for _ in range(TRIES):
            model.cycle()
            self.run(Batch(everything=True))
        self.touched.clear()
        self.check(model, before)


def is_file(path: bytes) -> bool:
    return os.path.isfile(path) and not os.path.islink(path)


def read_aside(top: Path) -> set[bytes]:
    """Every content and link text that was set aside."""
    places = top.glob("XDG_STATE_HOME/**/staging/conflicts")
    return {node.body for place in places for node in read(str(place)).values() if node.kind in ("file", "link")}


def _short(wrong: dict[bytes, tuple[object, object]]) -> str:
    return "\n".join(f"{path!r}: {one!s:.160} | {other!s:.160}" for path, (one, other) in sorted(wrong.items()))


def machine(examples: int, steps: int, *, derandomize: bool) -> type[unittest.TestCase]:
    """The machine with a fixed profile; `derandomize`: every run does the same."""

    class Case(Mirror):
        pass

    Case.TestCase.settings = settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        derandomize=derandomize,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    return Case.TestCase


@pytest.mark.kernel
@pytest.mark.timeout(300)
class TestMirror(machine(150, 40, derandomize=True)):  # type: ignore[misc]
    pass
