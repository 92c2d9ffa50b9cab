"""What a pair remembers between cycles: its roots, its first meeting, absences that want a second look."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from syncd.engine.baseline import Baseline
from syncd.engine.cycle import cycle
from syncd.engine.pair import NOWHERE, SECOND_LOOK, Pair
from syncd.engine.plan import plan_mirror
from syncd.engine.staging import Staging, open_staging
from syncd.errors import FirstMeeting
from syncd.kernel.contract import Look
from syncd.model.change import Batch, Line, Row
from syncd.model.entry import Agreed, Fingerprint, Kind
from syncd.model.plan import Plan, Verb
from syncd.model.report import CycleReport, Halt, Problem
from syncd.model.settings import Settings
from tests.fakes import FakeDiff, fingerprint

SEEN = Fingerprint(5, 1, 1, 7, 0o100644)


@pytest.fixture
def pair(tmp_path, kernel):
    for name in ("s", "t"):
        (tmp_path / name).mkdir()
    settings = Settings(os.fsencode(tmp_path / "s"), os.fsencode(tmp_path / "t"))
    baseline = Baseline(kernel, tmp_path / "pair")
    baseline.open({})
    pair = Pair(settings, kernel, baseline, Staging(tmp_path, -1))
    yield pair
    pair.staging.close()
    baseline.close(clean=False)


def look(pair: Pair) -> Halt | bool:
    """Whether the source counts as replaced, or why the pair halts."""
    with pair.roots() as roots:
        return roots if isinstance(roots, Halt) else pair.replaced


def anew(path: Path) -> None:
    """Put another directory in the place of one."""
    path.rename(path.with_name("old"))
    path.mkdir()


def test_roots_are_closed_between_cycles(pair):
    before = os.listdir("/proc/self/fd")
    assert look(pair) is False
    assert os.listdir("/proc/self/fd") == before
    with pytest.raises(ZeroDivisionError), pair.roots():
        raise ZeroDivisionError
    assert os.listdir("/proc/self/fd") == before


@pytest.mark.parametrize(("name", "said"), [("s", "the source .*/s cannot be opened"), ("t", "the target .*/t cannot")])
def test_a_root_that_is_missing_halts_and_comes_back(pair, tmp_path, name, said):
    import re

    look(pair)
    (tmp_path / name).rename(tmp_path / "away")
    halt = look(pair)
    assert isinstance(halt, Halt)
    assert re.search(said, halt.reason)
    (tmp_path / "away").rename(tmp_path / name)
    assert look(pair) is False


def test_another_target_halts_for_good(pair, tmp_path):
    look(pair)
    anew(tmp_path / "t")
    assert isinstance(look(pair), Halt)
    assert isinstance(look(pair), Halt)


def test_another_source_is_told_to_the_guard(pair, tmp_path):
    look(pair)
    anew(tmp_path / "s")
    assert look(pair) is True
    assert look(pair) is True


@pytest.mark.parametrize("name", ["s", "t"])
def test_a_root_replaced_during_a_cycle_is_seen_before_anything_is_written(pair, tmp_path, name):
    with pair.roots() as roots:
        assert pair.moved(roots) is None
        anew(tmp_path / name)
        assert isinstance(pair.moved(roots), Halt)
        (tmp_path / name).rmdir()
        assert isinstance(pair.moved(roots), Halt)


def conflicts(count: int) -> FakeDiff:
    rows = [Row(f"p{number:02}\n".encode(), None, None, None) for number in range(count)]
    return FakeDiff({Line.CONFLICT: count}, listed={Line.CONFLICT: rows})


def test_a_first_meeting_with_other_content_is_refused_with_ten_examples(pair):
    with pytest.raises(FirstMeeting, match=r"12 of its entries differ .*p00\\n, .*p09\\n …\nnothing was touched"):
        pair.meet(conflicts(12))
    assert "met" not in pair.baseline.notes
    pair.meet(conflicts(0))
    pair.meet(conflicts(3))
    assert pair.baseline.notes["met"] is True


def test_adopt_goes_on(pair):

    pair.settings = pair.settings._replace(adopt=True)
    pair.meet(conflicts(12))
    assert pair.baseline.notes["met"] is True


# Absences on a filesystem that may lie -----------------------------------------------------------------


def seen(pair: Pair, gone: list[bytes], now: float, looked: list[bytes] | None = None) -> Plan:
    """The plan of one cycle in which `gone` were missing from the source."""
    rows = [Row(path, None, None, None) for path in gone]
    diff = FakeDiff({Line.GONE: len(gone)}, len(gone), "id" if gone else "", {Line.GONE: rows})
    source = SimpleNamespace(scope=None if looked is None else [Look(path, False) for path in looked])
    return pair.second_look(diff, plan_mirror(diff, "keep", 10), source, now)


def removes(plan: Plan) -> bool:
    kept_back = plan.verbs[Line.GONE] is Verb.LEAVE
    assert kept_back == (plan.removals == 0 and plan.counts[Line.GONE] > 0)
    assert not kept_back or (plan.unexplained, plan.id) == (0, "")
    return not kept_back


@pytest.fixture
def lying(pair):
    pair.lying = True
    return pair


def test_elsewhere_an_absence_is_believed_at_once(pair):
    pair.lying = False
    assert removes(seen(pair, [b"a"], 0.0))
    assert pair.second_look_due is None


def test_an_absence_is_believed_when_it_is_seen_again_a_second_later(lying):
    assert not removes(seen(lying, [b"a"], 0.0))
    assert (lying.doubted, lying.second_look_due) == ([b"a"], SECOND_LOOK)
    assert not removes(seen(lying, [b"a"], 0.9, [b"a"]))
    assert lying.overdue(0.9) == frozenset()
    assert lying.overdue(1.0) == {b"a"}
    assert removes(seen(lying, [b"a"], 1.0, [b"a"]))
    assert (lying.doubted, lying.second_look_due) == ([], None)


def test_what_is_there_again_is_no_longer_doubted(lying):
    seen(lying, [b"a", b"b"], 0.0)
    assert removes(seen(lying, [b"b"], 1.0, [b"a", b"b"]))
    assert lying.doubted == []
    seen(lying, [b"a"], 2.0)
    seen(lying, [], 2.5)
    assert lying.doubted == []


def test_a_cycle_elsewhere_does_not_forget_it(lying):
    seen(lying, [b"a"], 0.0, [b"a"])
    seen(lying, [], 0.5, [b"z"])
    assert not removes(seen(lying, [b"b"], 0.7, [b"b"]))
    assert lying.second_look_due == SECOND_LOOK
    assert lying.overdue(1.0) == {b"a"}
    assert removes(seen(lying, [b"a"], 1.0, [b"a"]))
    assert (lying.doubted, lying.second_look_due) == ([b"b"], 0.7 + SECOND_LOOK)


def test_older_and_newer_absences_of_one_cycle_wait_together(lying):
    """Else the older one would be due at once again, and again."""
    seen(lying, [b"a"], 0.0)
    assert not removes(seen(lying, [b"a", b"b"], 0.8))
    assert lying.second_look_due == 0.8 + SECOND_LOOK
    assert removes(seen(lying, [b"a", b"b"], 0.8 + SECOND_LOOK))


def test_the_states_of_version_control_are_remembered(pair, tmp_path):
    (tmp_path / "s" / ".git").mkdir()
    (tmp_path / "s" / ".git" / "index").write_text("1")
    with pair.roots() as roots:
        one = pair._vcs_state(roots)
        assert one == pair._vcs_state(roots)
        (tmp_path / "s" / ".git" / "index").write_text("22")
        assert pair._vcs_state(roots) != one


@pytest.mark.parametrize("told", [True, False])
def test_removals_at_the_top_are_explained_by_the_roots_own_times(pair, tmp_path, told):
    """Across a restart, or when no word came of them: the guard need not halt."""
    for number in range(300):
        (tmp_path / "s" / f"f{number}").write_bytes(b"")
    target = os.open(tmp_path / "t", os.O_RDONLY | os.O_DIRECTORY)
    pair.staging = open_staging(tmp_path / "state", tmp_path / "t", target)
    os.close(target)
    assert cycle(pair, Batch(everything=True)).put == 300
    (tmp_path / "s" / "new").write_bytes(b"")
    assert cycle(pair, Batch(frozenset([b"new"]))).put == 1
    base = pair.baseline.base
    assert base.get(b"").source.mtime_ns == (tmp_path / "s").stat().st_mtime_ns
    if not told:  # the files vanish and nothing shows that anybody removed them
        pair.baseline.settle([(b"", base.get(b"")._replace(source=fingerprint()))])
    for number in range(200):
        (tmp_path / "s" / f"f{number}").unlink()
    done = cycle(pair, Batch(everything=True))
    assert (done.halt is None) == told
    assert done.removed == (200 if told else 0)


def test_after_a_crash_what_could_not_be_compared_goes_on_being_doubted(pair):
    """And only that: the container's later edits elsewhere are no damage."""
    pair.trusted, pair.run = False, {"boot": "this one"}
    agreed = Agreed(Kind.FILE, 0o644, 1, b"x" * 16, None, SEEN, SEEN)
    pair.baseline.settle([(b"d/unread", agreed), (b"read", agreed)])
    with pair.roots() as roots:
        pair.recognise(roots)
        problems = (Problem(b"d", 13, "scan"), Problem(b"read", 11, "busy"))
        pair.finished(CycleReport(1, True, problems=problems), roots, Batch(everything=True))
    assert pair.trusted
    assert pair.baseline.notes["run"] == {"boot": "this one"}
    assert pair.baseline.base.get(b"d/unread").target == NOWHERE
    assert pair.baseline.base.get(b"read").target == SEEN


@pytest.mark.parametrize("when", ["between cycles", "within one"])
def test_what_is_covered_takes_lone_saves_off_their_short_way(pair, monkeypatch, when):
    """That one knows nothing of mounts."""
    pair.calm = True
    monkeypatch.setattr("syncd.engine.pair.covered", lambda *_: frozenset([b"d"]))
    if when == "within one":
        assert pair.is_covered_anew()
        assert not pair.is_covered_anew()
    else:
        pair.recompile()
    assert (pair.covered, pair.calm) == ({b"d"}, False)
