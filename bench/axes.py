"""The axes of the speed table: each function is one run of one engine on a fresh filesystem.

A run puts what it measured into a `Log` under (axis, engine, round, metric). It raises EngineFailed when the engine
did not do its work or when the target is not equal at the end: a wrong copy has no speed.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from bench import compare, proc, trees
from bench.disk import Scratch
from bench.engines.base import HIDDEN, Engine, EngineFailed, Running
from bench.trees import Tree

SKIP = frozenset({".git"})
STYLES = ("inplace", "rename")
QUIET_MS = 1_000  # nothing in the target changed for so long: the engine has done what it was going to do


@dataclass
class Log:
    """Everything that was measured, in the order in which it was."""

    rows: list[tuple[str, str, int, str, float]] = field(default_factory=list)
    failed: dict[tuple[str, str], str] = field(default_factory=dict)  # (axis, engine) -> why

    def add(self, axis: str, engine: str, round_: int, metric: str, value: float) -> None:
        """Note one value."""
        self.rows.append((axis, engine, round_, metric, value))

    def rounds(self, axis: str, engine: str, metric: str) -> dict[int, float]:
        """The values of one metric by round; of several in one round the median."""
        found: defaultdict[int, list[float]] = defaultdict(list)
        for at, who, round_, what, value in self.rows:
            if (at, who, what) == (axis, engine, metric):
                found[round_].append(value)
        return {round_: median(values) for round_, values in found.items()}


@dataclass(frozen=True, slots=True)
class Bench:
    """What every run needs: where to work, the compiled programs, where results go."""

    scratch: Scratch
    programs: Path
    log: Log

    def probe(self, *arguments: str | Path) -> list[str]:
        """The command line of the judge."""
        return [str(self.programs / "probe"), *map(str, arguments)]


def median(values: Sequence[float]) -> float:
    """The middle value."""
    return percentile(values, 50)


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which `share` percent of them lie, by the nearest rank from above."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share / 100))]


# --- lag and CPU per save --------------------------------------------------------------------------


def lag(bench: Bench, engine: Engine, round_: int, saves: int, pause_us: int) -> None:
    """Lone saves in a tree of 3,000 files, in place and by rename: lag of each, and processor time a save."""
    with bench.scratch.fresh(trees.PROJECT) as top, engine.start(top, bench.scratch.path) as running:
        running.ready()
        names = [str(path.relative_to(top / "src")) for path in sorted(trees.walk(top / "src"))[::10]]
        (bench.scratch.path / "list").write_text("\n".join(names))
        time.sleep(0.5)
        for style in STYLES:
            before = proc.cpu_ns(running.pids())
            said = subprocess.run(
                bench.probe(
                    "saves",
                    top / "src",
                    top / "dst",
                    bench.scratch.path / "list",
                    str(saves),
                    style,
                    str(pause_us),
                    str(round_ + 1),
                ),
                capture_output=True,
                text=True,
                check=False,
            )
            lags = [int(line) for line in said.stdout.split()]
            if said.returncode or len(lags) != saves:
                raise EngineFailed(
                    f"{engine.name}: save {len(lags)} of {saves} ({style}) did not arrive; {said.stderr} {running.said()}"
                )
            time.sleep(0.3)  # what it does after the save is part of the save's cost
            cpu = proc.cpu_ns(running.pids()) - before
            for value in lags:
                bench.log.add("lag", engine.name, round_, f"{style} ms", value / 1e6)
            bench.log.add("lag", engine.name, round_, f"{style} p50 ms", percentile(lags, 50) / 1e6)
            bench.log.add("lag", engine.name, round_, f"{style} p95 ms", percentile(lags, 95) / 1e6)
            bench.log.add("lag", engine.name, round_, f"{style} cpu ms", cpu / saves / 1e6)
        must_be_equal(engine, top)


def bare(bench: Bench, round_: int, saves: int, pause_us: int) -> None:
    """The floor's own system calls in a loop, and what being woken costs: is the floor a floor?"""
    with bench.scratch.fresh(trees.PROJECT) as top:
        subprocess.run(["cp", "-a", f"{top}/src", f"{top}/dst"], check=True)
        one = next(path for path in sorted(trees.walk(top / "src")) if 3_000 < path.stat().st_size < 5_000)
        other = top / "dst" / one.relative_to(top / "src")
        for what in ("copy", "wake"):
            said = subprocess.run(
                [str(bench.programs / "bare"), what, str(one), str(other), str(saves), str(pause_us)],
                capture_output=True,
                text=True,
                check=True,
            )
            values = [int(line) / 1e6 for line in said.stdout.split()]
            bench.log.add("bare", "bare", round_, f"{what} p50 ms", percentile(values, 50))


# --- a burst ---------------------------------------------------------------------------------------


def burst(bench: Bench, engine: Engine | None, round_: int) -> None:
    """`git checkout` to a revision 2,000 files away and back: from git's end to equal. None: rsync, started then."""
    name = engine.name if engine else "rsync"
    with bench.scratch.fresh(trees.REPOSITORY) as top:
        if engine is None:
            subprocess.run(["rsync", "-a", *HIDDEN, f"{top}/src/", f"{top}/dst/"], check=True)
            _checkouts(bench, name, top, round_, None)
        else:
            with engine.start(top, bench.scratch.path) as running:
                _checkouts(bench, name, top, round_, running.ready())


def bare_burst(bench: Bench, round_: int) -> None:
    """The same files written anew by the system calls of publishing alone: what no mirror that checks can go below."""
    with bench.scratch.fresh(trees.REPOSITORY) as top:
        subprocess.run(["cp", "-a", f"{top}/src", f"{top}/dst"], check=True)
        (top / "staging").mkdir()
        left, right = (trees.sizes(top / "src", branch) for branch in ("left", "right"))
        changed = trees.git(top / "src", "diff", "--name-only", "--diff-filter=M", "left", "right").splitlines()
        lines = [f"{'-' if right[path] < left[path] else '+'}{path}\n" for path in changed]
        (top / "list").write_text("".join(lines))
        command = [str(bench.programs / "bare"), "publish", *(str(top / name) for name in ("dst", "staging", "list"))]
        said = subprocess.run(command, capture_output=True, text=True, check=True)
        bench.log.add("burst", "bare", round_, "ms", int(said.stdout) / 1e6)
        bench.log.add("burst", "bare", round_, "files", len(lines))


def _checkouts(bench: Bench, name: str, top: Path, round_: int, running: Running | None) -> None:
    for branch in ("right", "left"):
        time.sleep(0.5)
        with last_change(bench, top / "dst") as judge:
            trees.git(top / "src", "checkout", "-q", branch)
            end = time.monotonic_ns()
            if running is None:
                subprocess.run(["rsync", "-a", "--delete", *HIDDEN, f"{top}/src/", f"{top}/dst/"], check=True)
            latest = judge.equal(name, top, running)
        bench.log.add("burst", name, round_, "ms", max(latest - end, 0) / 1e6)


class Judge:
    """`probe last` at work on a target."""

    def __init__(self, process: subprocess.Popen[bytes], asking: IO[bytes], answers: IO[bytes]) -> None:
        self.process, self.asking, self.answers = process, asking, answers

    def last(self) -> int:
        """When the target's content or names last changed; waits until that is QUIET_MS ago."""
        self.asking.write(b"%d\n" % QUIET_MS)
        self.asking.flush()
        return int(self.answers.readline().split()[0])

    def equal(self, name: str, top: Path, running: Running | None, limit: float = 30) -> int:
        """The time of the change that made the target equal to the source. Compares all bytes."""
        end = time.monotonic() + limit
        while True:
            latest = self.last()
            difference = compare.equal(top / "src", top / "dst", SKIP)
            if not difference:
                return latest
            if time.monotonic() > end:
                raise EngineFailed(
                    f"{name}: not equal after {limit:.0f} s: {difference}; {running.said() if running else ''}"
                )


@contextmanager
def last_change(bench: Bench, target: Path) -> Iterator[Judge]:
    """Watch a target from outside."""
    with subprocess.Popen(bench.probe("last", target), stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            if process.stdout.readline() != b"ready\n":
                raise RuntimeError("the probe cannot watch the target")
            yield Judge(process, process.stdin, process.stdout)
        finally:
            process.kill()


# --- first copy, restart, idle, memory -------------------------------------------------------------


def first_copy(bench: Bench, engine: Engine | None, round_: int, tree: Tree, idle: bool = False) -> None:
    """First copy into nothing, process start included; then 60 changes while it is down, and a restart.

    None: `cp -a` for the first copy and `rsync -a --delete` for the changes. With `idle` also what the engine
    costs while nothing happens.
    """
    axis, name = tree.name, engine.name if engine else "cp and rsync"
    with bench.scratch.fresh(tree) as top:
        manifest = bench.scratch.path / "manifest"
        entries = write_manifest(top / "src", manifest)
        bench.log.add(axis, name, round_, "entries", entries)
        with subprocess.Popen(bench.probe("wait", top / "dst", manifest), stdout=subprocess.PIPE, text=True) as waiting:
            assert waiting.stdout is not None
            if engine is None:
                started = time.monotonic_ns()
                subprocess.run(["cp", "-a", f"{top}/src", f"{top}/dst"], check=True)
                _note_first_copy(bench, axis, name, round_, started, waiting.stdout.read(), top)
            else:
                (top / "dst").mkdir()
                with engine.start(top, bench.scratch.path) as running:
                    said = waiting.stdout.read()
                    pids = running.pids()
                    proc.stop_and_go(pids, signal.SIGSTOP)  # it can mend nothing while the bytes are compared
                    try:
                        _note_first_copy(bench, axis, name, round_, running.started, said, top)
                    finally:
                        proc.stop_and_go(pids, signal.SIGCONT)
                    running.ready()
                    bench.log.add(axis, name, round_, "first copy cpu s", proc.cpu_ns(running.pids()) / 1e9)
        trees.sixty_changes(top / "src")
        with last_change(bench, top / "dst") as judge:
            if engine is None:
                started = time.monotonic_ns()
                subprocess.run(["rsync", "-a", "--delete", *HIDDEN, f"{top}/src/", f"{top}/dst/"], check=True)
                latest = judge.equal(name, top, None)
                bench.log.add(axis, name, round_, "restart s", (latest - started) / 1e9)
            else:
                with engine.start(top, bench.scratch.path) as running:
                    latest = judge.equal(name, top, running.ready())
                    bench.log.add(axis, name, round_, "restart s", (latest - running.started) / 1e9)
                    _rest(bench, axis, name, round_, running, idle)


def _note_first_copy(bench: Bench, axis: str, name: str, round_: int, started: int, said: str, top: Path) -> None:
    """Note the time at which the last entry was there, if all bytes are right."""
    if not said.strip():
        raise EngineFailed(f"{name}: the first copy did not end")
    difference = compare.equal(top / "src", top / "dst", SKIP)
    if difference:
        raise EngineFailed(f"{name}: the first copy is not equal: {difference}")
    bench.log.add(axis, name, round_, "first copy s", (int(said) - started) / 1e9)


def _rest(bench: Bench, axis: str, name: str, round_: int, running: Running, idle: bool) -> None:
    """Memory, and what 10 s of nothing cost after 5 s of quiet."""
    time.sleep(5 if idle else 1)
    pids = running.pids()
    bench.log.add(axis, name, round_, "pss MiB", proc.pss_kib(pids) / 1024)
    if idle:
        cpu, woken = proc.cpu_ns(pids), proc.wakeups(pids)
        time.sleep(10)
        bench.log.add(axis, name, round_, "idle wake-ups", proc.wakeups(pids) - woken)
        bench.log.add(axis, name, round_, "idle cpu ms", (proc.cpu_ns(pids) - cpu) / 1e6)


def growth(log: Log, name: str, few: str, many: str) -> None:
    """What three times as many files cost: the ratios between two trees, and the memory that each entry adds."""
    for metric in ("first copy s", "restart s", "pss MiB"):
        small, large = (log.rounds(axis, name, metric) for axis in (few, many))
        for round_ in small.keys() & large.keys():
            log.add("scale", name, round_, metric, large[round_])
            log.add("scale", f"{name} at {few}", round_, metric, small[round_])
    memory, entries = ([log.rounds(axis, name, metric) for axis in (few, many)] for metric in ("pss MiB", "entries"))
    for round_ in memory[0].keys() & memory[1].keys():
        more = entries[1][round_] - entries[0][round_]
        log.add("scale", name, round_, "bytes an entry", (memory[1][round_] - memory[0][round_]) * 2**20 / more)
    for axis in (few, many):
        if why := log.failed.get((axis, name)):
            log.failed["scale", name] = why


def growth_of_cp(log: Log, few: str, many: str) -> list[str]:
    """What the filesystem itself takes for three times as many files: as a note, since no limit hangs on it."""
    small, large = (log.rounds(axis, "cp and rsync", "first copy s") for axis in (few, many))
    ratios = sorted(large[round_] / small[round_] for round_ in small.keys() & large.keys())
    if not ratios:
        return []
    low, median, high = ratios[0], ratios[len(ratios) // 2], ratios[-1]
    return [f"scale: cp -a takes {median:.2f} × as long ({low:.2f} … {high:.2f}) for 3 × the files"]


def write_manifest(source: Path, into: Path) -> int:
    """The list of `probe wait`: everything below `source`, in the order of a walk. Returns how many."""
    count = 0
    with into.open("wb") as out:
        stack = [b""]
        while stack:
            at = stack.pop()
            with os.scandir(os.path.join(bytes(source), at)) as found:
                entries = sorted(found, key=lambda entry: entry.name)
            for entry in entries:
                if not at and os.fsdecode(entry.name) in SKIP:
                    continue
                path = os.path.join(at, entry.name)
                is_file = entry.is_file(follow_symlinks=False)
                out.write(b"%d %s\0" % (entry.stat(follow_symlinks=False).st_size if is_file else -1, path))
                count += 1
                if entry.is_dir(follow_symlinks=False):
                    stack.append(path)
    return count


def must_be_equal(engine: Engine, top: Path) -> None:
    """Compare all bytes; a peer may need a moment for the last event."""
    for _ in range(20):
        difference = compare.equal(top / "src", top / "dst", SKIP)
        if not difference:
            return
        time.sleep(0.1)
    raise EngineFailed(f"{engine.name}: not equal at the end: {difference}")
