"""The engine thread's own bookkeeping: commands, and what it remembers. Cycles have tests of their own."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace

import pytest

from syncd.control.remembered import REMEMBERED, Remembered
from syncd.control.runner import AGAIN_MOST, Runner
from syncd.control.status import State, Status, merge_problems
from syncd.errors import Refused, SyncdError, UsageError
from syncd.model.change import Batch, Hints
from syncd.model.report import CycleReport, Halt, Problem
from syncd.model.settings import Settings
from syncd.watchers.base import Coverage
from syncd.watchers.none import NoWatcher


@pytest.fixture
def runner():
    settings = Settings(b"/s", b"/t")
    control = SimpleNamespace(cancelled=False)
    pair = SimpleNamespace(
        settings=settings, control=control, second_look_due=None, overdue=lambda now: frozenset(), prepared=()
    )  # fmt: skip
    watch = SimpleNamespace(watcher=NoWatcher(), coverage=Coverage(0), attended=nullcontext)
    return Runner(pair, watch, Status(b"/s", b"/t", "pure", "none", ""), lambda done: None)


def test_commands_are_answered_in_turn(runner):
    answers = [runner.ask(lambda n=n: n) for n in range(3)]
    assert not any(answer.done() for answer in answers)
    runner._answer()
    assert [answer.result(0) for answer in answers] == [0, 1, 2]


def test_an_error_on_purpose_is_an_answer(runner):
    def fail():
        raise UsageError("no")

    answer = runner.ask(fail)
    runner._answer()
    assert isinstance(answer.exception(0), UsageError)


def test_any_other_error_is_an_answer_and_ends_the_thread(runner):
    answer = runner.ask(lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        runner._answer()
    assert isinstance(answer.exception(0), ZeroDivisionError)


def test_who_no_longer_waits_disturbs_nobody(runner):
    """A flush that timed out has cancelled its question."""
    ran = []
    one, two = runner.ask(lambda: ran.append(1)), runner.ask(lambda: ran.append(2))
    assert one.cancel()
    runner._answer()
    assert ran == [2]
    assert two.done()


def test_at_the_end_every_question_is_answered(runner):
    one, two = runner.ask(int), runner.ask(int)
    one.cancel()
    runner._refuse_commands()
    assert isinstance(two.exception(0), SyncdError)


def test_who_waits_for_the_end_is_told_once(runner):
    told = []
    runner.on_end(lambda: told.append(1))
    assert told == []
    runner._ended = True
    runner.on_end(lambda: told.append(2))
    assert told == [2]


def test_a_few_paths_are_remembered_and_bursts_are_not():
    named = Remembered()
    for number in range(2 * REMEMBERED):
        named.note(frozenset([b"%d" % number, b"always"]), 1.0 + number)
    last = 2 * REMEMBERED - 1
    assert named.last(b"always") == pytest.approx(named.last(b"%d" % last), abs=0.5)
    assert named.last(b"%d" % (last - REMEMBERED)) is None
    named.note(frozenset(b"m%d" % number for number in range(REMEMBERED)), 2.0)
    assert named.last(b"m0") is None


READ = Problem(b"d/a", 13, "read")


@pytest.mark.parametrize(
    ("looked", "deep", "new", "left"),
    [
        ((b"x",), (), (), (READ,)),
        ((b"d",), (), (), (READ,)),
        ((b"d/a",), (), (), ()),
        ((b"d",), (b"d",), (), ()),
        ((b"x",), (), (Problem(b"x", 5, "read"),), (READ, Problem(b"x", 5, "read"))),
        ((b"d/a",), (), (Problem(b"d/a", 5, "read"),), (Problem(b"d/a", 5, "read"),)),
    ],
)
def test_problems_stay_until_their_path_is_looked_at(looked, deep, new, left):
    old = (READ, Problem(b"b", 11, "busy"))
    batch = Batch(frozenset(looked), frozenset(deep))
    assert merge_problems(old, CycleReport(2, False, problems=new), batch) == left
    assert merge_problems((), CycleReport(2, False, problems=new), batch) == new


def test_a_path_to_be_looked_at_again_is_not_forgotten_over_another_batch(runner):
    runner._after(CycleReport(1, False, again=frozenset([b"x", b"y"])), Batch(frozenset([b"x", b"y"])))
    assert runner.status.state is State.SETTLING
    runner._after(CycleReport(2, False), Batch(frozenset([b"z", b"y"])))
    assert runner.status.state is State.SETTLING
    assert runner._overdue(0.0) == Batch(frozenset([b"x"]), deep=frozenset([b"x"]))
    assert runner._overdue(0.0) is None
    runner._after(CycleReport(3, False, again=frozenset([b"x"])), Batch(frozenset([b"x"])))
    runner._after(CycleReport(4, True), Batch(everything=True))
    assert runner._overdue(0.0) is None


def test_a_busy_file_is_looked_at_less_and_less_often(runner):
    delays = []
    for number in range(7):
        runner._after(CycleReport(number, False, busy=(b"x",)), Batch(frozenset([b"x"])))
        delays.append(runner._busy[b"x"][1])
    assert delays == [0.25, 0.5, 1.0, 2.0, 4.0, 5.0, 5.0]
    assert runner.status.state is State.WAITING
    runner._after(CycleReport(9, False), Batch(frozenset([b"x"])))
    assert not runner._busy
    assert runner.status.state is State.IN_SYNC


def test_a_full_target_is_tried_again_less_and_less_often(runner):
    delays = []
    for number in range(7):
        runner._after(CycleReport(number, True, stopped=28), Batch(everything=True))
        delays.append(runner._retry[1])
    assert delays == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]
    assert runner._due() is not None
    runner._after(CycleReport(9, True), Batch(everything=True))
    assert runner._due() is None


def test_a_thread_that_cannot_start_says_so_and_ends(runner, monkeypatch):
    """Who waits for its end must not wait for ever."""

    def refuse():
        raise FileNotFoundError(2, "no mountinfo")

    monkeypatch.setattr("syncd.control.runner.open_changes", refuse)
    told = []
    runner.on_end(lambda: told.append(1))
    runner.run()
    assert isinstance(runner.error, FileNotFoundError)
    assert (told, runner.started.is_set(), runner.status.state) == ([1], True, State.STOPPED)


def test_a_name_that_came_and_went_costs_no_cycle(runner):
    runner.pair.baseline = SimpleNamespace(base={b"known": 1})
    runner._settle.offer(Hints(waiting=frozenset([b"tmp"])), 0.0)
    names = frozenset([b"tmp", b"known"])
    hints = Hints(frozenset([b"f"]), names, frozenset(), names, ((b"tmp", b"f"),), gone=names)
    runner.pair.lacking = frozenset
    left = runner._without_passing(hints)
    assert (left.ready, left.waiting, left.removed) == ({b"f"}, {b"known"}, {b"known"})
    assert not runner._settle
    runner.pair.lacking = lambda paths: frozenset()
    assert runner._without_passing(hints) == hints, "it was exchanged with another name, and is there"
    runner.status = runner.status._replace(problems=(READ,))
    assert runner._without_passing(hints) == hints, "a problem is not forgotten over it"


def test_a_flush_that_is_cut_short_does_not_answer_flushed(runner, monkeypatch):
    runner._settle.offer(Hints(ready=frozenset([b"a"])), 0.0)
    runner.pair.recheck = lambda busy: frozenset()
    runner.pair.doubted, runner.pair.links_changed, runner.pair.has_lost_target = [], False, False
    monkeypatch.setattr(runner, "_cycle", lambda batch: CycleReport(1, False, cut=True))
    with pytest.raises(SyncdError, match="ending"):
        runner.flush(1e12)


def test_a_flush_for_which_the_state_has_no_room_is_a_halt(runner):
    runner.pair.doubted, runner.pair.number = [], 3

    def recheck(busy):
        raise OSError(28, "No space left on device")

    runner.pair.recheck = recheck
    assert "No space left" in runner.flush(1e12).halt.reason
    assert runner.status.state is State.HALTED
    assert runner._retry is not None


def test_what_is_never_as_it_was_seen_becomes_a_problem_and_is_looked_at_less_often(runner):
    batch, again = Batch(frozenset([b"x"])), frozenset([b"x"])
    for number in range(AGAIN_MOST):
        runner._after(CycleReport(number, False, again=again), batch)
        assert runner._again == again
        assert runner.status.problems == ()
    runner._after(CycleReport(6, False, again=again), batch)
    assert not runner._again
    assert [problem.path for problem in runner.status.problems] == [b"x"]
    assert runner._due() > 0
    runner._after(CycleReport(7, False), Batch(frozenset([b"y"])))
    runner._after(CycleReport(8, False, again=again), batch)
    assert not runner._again, "a cycle elsewhere begins no new row of tries"
    runner._after(CycleReport(9, False), batch)
    assert (runner.status.problems, runner._tries) == ((), {})


def test_an_absence_waits_while_a_root_cannot_be_looked_at(runner):
    runner.pair.overdue = lambda now: frozenset([b"x"])
    runner.pair.second_look_due = 0.0
    assert runner._overdue(0.0) == Batch(frozenset([b"x"]))
    runner._retry = (5.0, 1.0)
    assert runner._overdue(0.0) is None
    assert runner._due() == 5.0


@pytest.mark.parametrize("halt", [None, Halt("no")])
def test_what_was_named_is_looked_at_also_after_a_look_at_everything(runner, monkeypatch, halt):
    """Which believes the fingerprint of a file that changed twice in one tick. The answer is of both looks."""
    tried = []
    problem = Problem(b"b", 5, "read")
    full = CycleReport(1, True, put=3, halt=halt, busy=(b"c",), problems=(problem,))
    monkeypatch.setattr(runner, "_full_cycle", lambda batch: runner._after(full, batch))
    monkeypatch.setattr(
        runner, "_try", lambda batch: tried.append(batch) or CycleReport(2, False, put=1, drift={"x": 1})
    )
    monkeypatch.setattr("syncd.control.runner.takes_rules_away", lambda *_: False)
    runner.pair.rules, runner.pair.doubted = None, []
    done = runner._cycle(Batch(frozenset([b".syncdignore", b"a"]), since=3.0))
    if halt:
        assert not tried
        full = full._replace(halt=None)
        runner._cycle(Batch(everything=True))
    assert tried == [Batch(frozenset([b".syncdignore", b"a"]))]
    if not halt:
        assert (done.number, done.full, done.put, done.problems) == (1, True, 4, (problem,))
        assert runner.status.last == done


def test_looks_again_come_after_ever_longer_pauses(runner, monkeypatch):
    monkeypatch.setattr("syncd.control.runner.time.monotonic", lambda: 100.0)
    pauses = []
    for number in range(AGAIN_MOST):
        runner._after(CycleReport(number, False, again=frozenset([b"x"])), Batch(frozenset([b"x"])))
        pauses.append(max(0.0, runner._due() - 100.0))
    assert pauses == pytest.approx([0.0, 0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32])


def test_a_copy_that_comes_later_and_does_not_fit_halts_the_watch_and_does_not_end_it(runner, monkeypatch):
    def refuse(*_args, **_more):
        raise Refused("it does not fit")

    monkeypatch.setattr("syncd.control.runner.cycle", refuse)
    runner.hurry, runner.pair.number = False, 0
    with pytest.raises(Refused):
        runner._try(Batch(everything=True))
    runner.status = runner.status._replace(cycles=1)
    assert "does not fit" in runner._try(Batch(everything=True)).halt.reason
