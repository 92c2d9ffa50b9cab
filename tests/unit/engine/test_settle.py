"""Cases are tables of events and batches with times; a small driver stands for the thread that waits."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncd.engine.settle import Settle
from syncd.model.change import Batch, Hints
from syncd.model.settings import Timing

FOLDER = Path(__file__).parents[2] / "cases" / "settle"
CASES = [case for file in sorted(FOLDER.glob("*.toml")) for case in tomllib.loads(file.read_text())["case"]]


class Driver:
    """Takes what is ready as the engine's thread does. Times in milliseconds."""

    def __init__(self, timing: Timing | None = None) -> None:
        self.settle = Settle(timing)
        self.batches: list[tuple[float, Batch]] = []
        self.now = 0.0

    def until(self, at: float, limit: int = 1000) -> None:
        """Everything that is due before `at`."""
        while (due := self.settle.due()) is not None and due < at:
            self.now = max(self.now, due)
            self.take(self.now)
            assert len(self.batches) < limit
        self.now = at

    def take(self, now: float) -> None:
        """A look must bring something exactly when `due` said so."""
        due = self.settle.due()
        batch = self.settle.take(now)
        assert (batch is not None) == (due is not None and due <= now), (due, now, batch)
        if batch is not None:
            self.batches.append((now, batch))


def many(count: int) -> frozenset[bytes]:
    return frozenset(f"m{number:05}".encode() for number in range(count))


def names(event: dict[str, Any], key: str) -> frozenset[bytes]:
    return frozenset(text.encode() for text in event.get(key, ()))


def hints(event: dict[str, Any]) -> Hints:
    removed = names(event, "removed")
    return Hints(
        ready=names(event, "ready") | many(event.get("ready_many", 0)),
        waiting=names(event, "waiting") | removed,
        deep=names(event, "deep"),
        removed=removed,
        moves=tuple((old.encode(), new.encode()) for old, new in event.get("moves", ())),
        locks=event.get("locks", False),
        rescan=event.get("rescan", False),
    )


def spread(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """An event with `every` and `to` is repeated."""
    out: list[dict[str, Any]] = []
    for event in events:
        if "every" in event:
            out += [event | {"at": at} for at in range(event["every"], event["to"], event["every"])]
        else:
            out.append(event)
    return out


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_case(case):
    driver = Driver()
    for event in spread(case["events"]):
        now = event["at"] / 1000
        driver.until(now)
        if "lock" in event:
            driver.settle.hold(event["lock"], now)
        driver.settle.offer(hints(event), now)
        if event.get("flush"):
            if (batch := driver.settle.flush()) is not None:
                driver.batches.append((now, batch))
        elif not event.get("stay"):
            driver.take(now)
    driver.until(3600.0)
    assert not driver.settle
    assert driver.settle.due() is None
    seen = []
    for (at, batch), want in zip(driver.batches, case["batches"] + [{}] * len(driver.batches), strict=False):
        shown: dict[str, Any] = {"at": round(at * 1000, 6), "paths": batch.paths}
        shown |= {"deep": batch.deep, "removed": batch.removed, "moves": batch.moves, "everything": batch.everything}
        if "since" in want:
            shown["since"] = round(batch.since * 1000, 6)
        seen.append(shown)
    assert seen == [expected(batch) for batch in case["batches"]]


def expected(batch: dict[str, Any]) -> dict[str, Any]:
    shown = {
        "at": batch["at"],
        "paths": (names(batch, "paths") | many(batch.get("many", 0))) - names(batch, "without"),
        "deep": names(batch, "deep"),
        "removed": names(batch, "removed"),
        "moves": tuple((old.encode(), new.encode()) for old, new in batch.get("moves", ())),
        "everything": batch.get("everything", False),
    }
    return shown | ({"since": batch["since"]} if "since" in batch else {})


def test_names_are_sentences_and_said_once():
    said = [case["name"] for case in CASES]
    assert len(set(said)) == len(said)
    assert all(len(name.split()) > 4 for name in said)


# Properties -------------------------------------------------------------------------------------------

TIMING = Timing(many=20)  # so that a flood is cheap to make
PATHS = st.sampled_from([f"p{number}".encode() for number in range(30)])
FEW = st.frozensets(PATHS, max_size=3)
ALL = st.frozensets(PATHS, max_size=30)


@st.composite
def words(draw: st.DrawFn) -> Hints:
    ready = draw(FEW | ALL)
    waiting = draw(FEW) - ready
    removed = frozenset(path for path in sorted(waiting) if draw(st.booleans()))
    deep = frozenset(path for path in sorted(waiting) if draw(st.booleans()))
    return Hints(ready, waiting, deep, removed, rescan=draw(st.integers(0, 15)) == 0)


STEPS = st.lists(st.tuples(st.integers(0, 80), words() | st.booleans()), max_size=40)


@given(STEPS)
def test_every_path_comes_out_in_time_and_nothing_else(steps):
    """Each path offered comes out, at most `hold` and the time locks were held after its first word."""
    driver = Driver(TIMING)
    pending: dict[bytes, tuple[float, float]] = {}  # first word and the time locks had been held by then
    marks: set[bytes] = set()
    rescans = 0
    held_since: float | None = None
    held = 0.0
    given_out = 0

    def held_until(now: float) -> float:
        return held + (now - held_since if held_since is not None else 0.0)

    def judge() -> None:
        nonlocal given_out, rescans
        for at, batch in driver.batches[given_out:]:
            if batch.everything:
                assert rescans
                rescans = 0
            assert batch.removed <= marks
            assert batch.since <= at
            for path in batch.paths:
                first, before = pending.pop(path)
                assert at - first <= TIMING.flood_hold + held_until(at) - before + 1e-9
                marks.discard(path)
        given_out = len(driver.batches)

    now = 0.0
    for pause, step in steps:
        now += pause / 1000
        driver.until(now)
        judge()
        if isinstance(step, bool):
            if step and held_since is None:
                held_since = now
            elif not step and held_since is not None:
                held, held_since = held_until(now), None
            driver.settle.hold(step, now)
        else:
            for path in step.ready | step.waiting:
                pending.setdefault(path, (now, held_until(now)))
            marks |= step.removed
            rescans += step.rescan
            driver.settle.offer(step, now)
        driver.take(now)
        judge()
    if held_since is not None:
        driver.until(now + 5.0)
        judge()
        last = driver.settle.flush()
        if last is not None:
            driver.batches.append((now, last))
    else:
        driver.until(now + 3.0)
    judge()
    assert not pending
    assert not rescans
    assert not driver.settle
    assert len(driver.settle) == 0
    assert driver.settle.flush() is None


@given(STEPS)
def test_what_is_soon_due_is_what_is_taken_unless_a_word_comes(steps):
    driver = Driver(TIMING)
    now = 0.0
    for pause, step in steps:
        soon, due, before = driver.settle.soon(now), driver.settle.due(), len(driver.batches)
        now += pause / 1000
        driver.until(now)
        if soon is not None and due is not None and due < now:
            assert driver.batches[before] == (due, soon)
        if isinstance(step, bool):
            driver.settle.hold(step, now)
        else:
            driver.settle.offer(step, now)
        driver.take(now)


def test_a_burst_is_soon_due_when_its_lock_went():
    settle = Settle(TIMING)
    settle.hold(True, 0.0)
    settle.offer(Hints(many(30)), 1.0)
    assert settle.soon(1.0) is None
    settle.hold(False, 2.0)
    assert settle.soon(2.0) == Batch(many(30), since=1.0)
    assert settle.soon(2.0 + TIMING.released / 2) == Batch(many(30), since=1.0)
    assert settle.soon(2.0 + TIMING.released) is None
    settle.offer(Hints(frozenset([b"late"])), 2.0 + TIMING.released / 2)
    assert settle.soon(2.0 + TIMING.released / 2) == Batch(many(30) | {b"late"}, since=1.0)
    settle.offer(Hints(frozenset([b"m00001"])), 2.0 + TIMING.released * 1.5)
    assert settle.soon(2.0 + TIMING.released * 1.5) is None


@given(st.lists(st.tuples(st.integers(0, 60), words()), max_size=30))
def test_without_locks_and_rescans_nothing_waits_longer_than_its_ceiling(steps):
    """At most 250 ms, or two seconds in a flood."""
    driver = Driver(TIMING)
    first: dict[bytes, float] = {}

    def judge() -> None:
        for at, batch in driver.batches:
            limit = TIMING.hold if len(batch.paths) <= TIMING.many else TIMING.flood_hold
            assert all(at - first.pop(path) <= limit + 1e-9 for path in batch.paths)
        driver.batches.clear()

    now = 0.0
    for pause, step in steps:
        now += pause / 1000
        driver.until(now)
        judge()
        driver.settle.offer(step._replace(rescan=False), now)
        for path in step.ready | step.waiting:
            first.setdefault(path, now)
        driver.take(now)
        judge()
    driver.until(now + 3.0)
    judge()
    assert not first


@given(st.lists(words(), max_size=10), st.booleans())
def test_flush_gives_everything(steps, held):
    settle = Settle(TIMING)
    settle.hold(held, 0.0)
    for step in steps:
        settle.offer(step, 0.0)
    batch = settle.flush()
    offered = frozenset().union(*(step.ready | step.waiting for step in steps))
    assert (batch.paths if batch else frozenset()) == offered
    assert bool(batch and batch.everything) == any(step.rescan for step in steps)
    assert settle.flush() is None


def test_a_burst_costs_no_step_a_path():
    """50,000 paths in one read are taken in by set operations: no line of Python runs once a path."""
    import sys

    settle = Settle()
    offered = Hints(ready=many(50_000), removed=many(10_000))
    lines = 0

    def trace(frame, event, arg):
        nonlocal lines
        lines += event == "line"
        return trace

    old = sys.gettrace()
    sys.settrace(trace)
    try:
        settle.offer(offered, 0.0)
        settle.due()
        batch = settle.take(1.0)
    finally:
        sys.settrace(old)
    assert batch is not None
    assert len(batch.paths) == 50_000
    assert lines < 300


def test_a_removal_is_told_as_long_as_nobody_took_it_also_in_a_burst():
    settle = Settle()
    settle.offer(Hints(waiting=frozenset([b"a"]), removed=frozenset([b"a"])), 0.0)
    assert settle.removed == {b"a"}
    many = frozenset(b"%d" % number for number in range(20))
    settle.offer(Hints(waiting=many, removed=many), 0.001)
    assert settle.removed == {b"a", *many}
    settle.flush()
    assert settle.removed == frozenset()
