"""Measures the speed table.

    python -m bench.run --quick          all axes with few rounds, at most five minutes
    python -m bench.run --only lag       some axes
    python -m bench.run --save           raw.csv, machine.txt and summary.md into bench/results/<date>-<host>/

Competitors take turns within a round, each on a fresh filesystem; a ratio is always one of the same round, and the
table shows the median of these ratios with the lowest and the highest. Exits with 1 when a limit is missed.
"""

from __future__ import annotations

import argparse
import compileall
import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path

from bench import axes, report, trees
from bench.axes import Bench, Log
from bench.disk import NoDisk, Scratch, enter_namespace
from bench.engines.base import SYNCD, EngineFailed
from bench.engines.catalogue import engines

HERE = Path(__file__).resolve().parent
AXES = ("lag", "burst", "node", "scale")
PROGRAMS = {"floor": "floor/floor.c", "bare": "floor/bare.c", "probe": "probe.c"}


@dataclass(frozen=True, slots=True)
class Effort:
    """How many rounds of each axis. `beside` rounds are run for what stands beside the table."""

    lag: int
    burst: int
    node: int
    scale: int
    beside: int
    saves: int
    pause_us: int
    seconds: float = float("inf")  # no axis begins a further round when its share of this is used up


FULL = Effort(lag=11, burst=7, node=5, scale=5, beside=3, saves=200, pause_us=40_000)
QUICK = Effort(lag=7, burst=5, node=3, scale=1, beside=1, saves=100, pause_us=16_000, seconds=280)
SHARES = {"lag": 0.36, "burst": 0.54, "node": 0.74}  # of the time, by the end of each axis
LARGE, SMALL = (100_000, 300_000), (30_000, 90_000)
LARGE_SECONDS = 110  # what the large pair takes on a busy machine
BESIDE_SECONDS = 40  # the same of a first copy and restart of the pure kernel


@dataclass(frozen=True, slots=True)
class Choice:
    """Who competes in what. `bodies[0]` is the one that is judged."""

    axes: list[str]
    bodies: list[str]
    peers: list[str]
    node: trees.Tree


def build(into: Path) -> Path:
    """Compile the floor, its bare calls and the probe."""
    into.mkdir()
    for name, source in PROGRAMS.items():
        command = [os.environ.get("CC", "cc"), "-O2", "-Wall", "-pthread", "-o", str(into / name), str(HERE / source)]
        subprocess.run(command, check=True)
    return into


def turns(names: list[str], round_: int) -> list[str]:
    """Whose turn it is: another one begins each round."""
    start = round_ % len(names)
    return names[start:] + names[:start]


def attempt(log: Log, axis: str, name: str, round_: int, work: Callable[[], None]) -> None:
    """One run. A failure is noted and shown in the table; the others go on."""
    start, said = time.monotonic(), ""
    try:
        work()
    except (EngineFailed, NoDisk, subprocess.SubprocessError, OSError) as error:
        log.failed[axis, name] = " ".join(str(error).split())[:300]
        said = f"FAILED: {log.failed[axis, name]}"
    print(
        f"  {axis:12} round {round_}  {name:12} {time.monotonic() - start:5.1f} s  {said}", file=sys.stderr, flush=True
    )


def measure(bench: Bench, effort: Effort, choice: Choice) -> list[str]:
    """All runs of the chosen axes. Returns what is to be known about them."""
    every, log, judged, notes = engines(bench.programs), bench.log, choice.bodies[0], list[str]()
    beside = choice.bodies[1:]
    start, quick = time.monotonic(), effort.seconds < float("inf")

    def rounds(axis: str, count: int, names: list[str], fewer: list[str]) -> Iterator[tuple[int, str]]:
        for round_ in range(count):
            if time.monotonic() - start > effort.seconds * SHARES[axis] and round_ >= 2:
                notes.append(f"{axis}: {round_} rounds instead of {count}, for want of time")
                return
            for name in turns(names + (fewer if round_ < effort.beside else []), round_):
                yield round_, name

    if "lag" in choice.axes:
        pace = (effort.saves, effort.pause_us)
        for round_, name in rounds("lag", effort.lag, ["floor", judged, "bare"], beside + choice.peers):
            work = partial(axes.lag, bench, every[name]) if name in every else partial(axes.bare, bench)
            attempt(log, "lag", name, round_, partial(work, round_, *pace))
    if "burst" in choice.axes:
        for round_, name in rounds("burst", effort.burst, ["floor", judged, "rsync", "bare"], beside):
            work = partial(axes.bare_burst, bench) if name == "bare" else partial(axes.burst, bench, every.get(name))
            attempt(log, "burst", name, round_, partial(work, round_))
    if "node" in choice.axes:
        # In a quick run the other bodies come last of all, with what time is left: their copies take the longest.
        for round_, name in rounds("node", effort.node, [judged, "cp and rsync"], [] if quick else beside):
            idle = name == judged and round_ == 0
            work = partial(axes.first_copy, bench, every.get(name), round_, choice.node, idle)
            attempt(log, choice.node.name, name, round_, work)
    if "scale" in choice.axes:
        sizes = LARGE
        if effort.seconds - (time.monotonic() - start) < LARGE_SECONDS:
            sizes = SMALL
            notes.append(f"scale: {sizes[1]:,} against {sizes[0]:,} files, for want of time")
        names = [judged] if quick else [judged, "cp and rsync"]
        few, many = (trees.flat(size) for size in sizes)
        for round_, name, at in product(range(effort.scale), names, (0, 1)):
            tree = (few, many)[(at + round_) % 2]  # what is compared follows at once, with the order changed each round
            attempt(log, tree.name, name, round_, partial(axes.first_copy, bench, every.get(name), round_, tree))
        axes.growth(log, judged, few.name, many.name)
        notes += axes.growth_of_cp(log, few.name, many.name)
    if "node" in choice.axes and quick:
        for name in beside:
            if effort.seconds - (time.monotonic() - start) > BESIDE_SECONDS:
                attempt(log, choice.node.name, name, 0, partial(axes.first_copy, bench, every[name], 0, choice.node))
            else:
                notes.append(f"first copy and restart of the {name} kernel: left out for want of time")
    return notes


def large_tree(scratch: Scratch, wish: str, notes: list[str]) -> trees.Tree:
    """Real packages where that is wished and works, else the generated tree; which one goes into the notes."""
    if wish != "real":
        notes.append("the large tree is generated in the shape of a node_modules (`--tree real` installs one)")
        return trees.NODE
    try:
        scratch.master(trees.REAL_NODE)
    except (OSError, subprocess.SubprocessError) as error:
        notes.append(f"no real node_modules to be had ({error}): the generated tree was used")
        return trees.NODE
    notes.append("the large tree is a real node_modules, installed from bench/node/package-lock.json")
    return trees.REAL_NODE


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few rounds: at most five minutes")
    parser.add_argument("--only", choices=AXES, action="append", help="measure this axis (may be repeated)")
    parser.add_argument("--rounds", type=int, help="rounds of the chosen axes")
    parser.add_argument("--body", choices=("native", "pure"), action="append", help="bodies; the first is judged")
    parser.add_argument("--peer", choices=("watchdog", "watchfiles"), action="append", help="peers of the lag")
    parser.add_argument("--tree", choices=("generated", "real"), default="generated", help="the large tree")
    parser.add_argument("--scratch", type=Path, help="where images are put (default: memory if there is enough)")
    parser.add_argument("--save", action="store_true", help="keep the results in bench/results/")
    return parser.parse_args()


def main() -> int:
    """Measure, print, clean up."""
    asked = arguments()
    if not SYNCD.exists():
        sys.exit(f"{SYNCD} is missing: make setup")
    # As any installation does: else a start would compile every module anew where PYTHONDONTWRITEBYTECODE is set.
    compileall.compile_dir(HERE.parent / "syncd", quiet=2)
    effort = QUICK if asked.quick else FULL
    if n := asked.rounds:
        effort = replace(effort, lag=n, burst=n, node=n, scale=n, beside=min(n, effort.beside))
    native = importlib.util.find_spec("syncd._native") is not None
    bodies = asked.body or (["native", "pure"] if native else ["pure"])
    peers = asked.peer or (["watchdog"] if asked.quick else ["watchdog", "watchfiles"])
    start, notes = time.monotonic(), list[str]()
    try:
        scratch = Scratch(asked.scratch)
    except NoDisk as error:
        sys.exit(f"bench: {error}")
    try:
        chosen = asked.only or list(AXES)
        node = large_tree(scratch, asked.tree, notes) if "node" in chosen else trees.NODE
        bench = Bench(scratch, build(scratch.path / "bin"), Log())
        notes += measure(bench, effort, Choice(chosen, bodies, peers, node))
        text, good = report.summary(bench.log, bodies, peers, node.name, notes)
        print(f"{text}\n{report.machine(scratch)}")
        if asked.save:
            print(f"saved in {report.save(bench.log, text, scratch)}", file=sys.stderr)
        print(f"took {time.monotonic() - start:.0f} s", file=sys.stderr)
        return 0 if good else 1
    finally:
        scratch.close()


def interrupted(*_: object) -> None:
    """Let the `finally`s run."""
    raise KeyboardInterrupt


if __name__ == "__main__":
    enter_namespace()
    signal.signal(signal.SIGTERM, interrupted)
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
