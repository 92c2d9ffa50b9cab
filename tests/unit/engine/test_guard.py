"""Rather stop than remove a lot on an error's word."""

from __future__ import annotations

import pytest

from syncd.engine.guard import Guard
from syncd.engine.plan import plan_mirror
from syncd.model.change import Line
from syncd.model.plan import Plan
from syncd.model.report import Halt
from tests.fakes import FakeDiff


def plan(unexplained: int = 0, known: int = 1000, *, removals: int | None = None, conflicts: int = 0) -> Plan:
    gone = unexplained if removals is None else removals
    counts = {Line.GONE: gone, Line.CONFLICT: conflicts}
    return plan_mirror(FakeDiff(counts, unexplained, id=f"id{gone}" if gone else ""), "keep", known)


@pytest.mark.parametrize(
    ("unexplained", "known", "halts"),
    [
        (501, 1000, True),
        (500, 1000, False),
        (101, 150, True),
        (100, 100, False),
        (400, 1000, False),
        (0, 0, False),
        (101, 101, True),
    ],
)
def test_more_than_half_and_more_than_a_hundred_halt(unexplained, known, halts):
    checked = Guard().check(plan(unexplained, known), 0.0)
    assert isinstance(checked, Halt) == halts
    if halts:
        assert (checked.id, checked.removals) == (f"id{unexplained}", unexplained)
        assert f"{unexplained} of {known}" in checked.reason
        assert f"syncd approve id{unexplained}" in str(checked)


def test_explained_removals_never_halt():
    made = plan(0, 1000, removals=1000)
    assert Guard().check(made, 0.0) is made


@pytest.mark.parametrize(("pause", "halts"), [(0.0, True), (29.0, True), (30.0, True), (30.1, False), (600.0, False)])
def test_removals_are_summed_over_sixty_seconds(pause, halts):
    """Three times 200 of 1,000: the third makes it more than half, unless the first is older than 60 s."""
    guard = Guard()
    assert isinstance(guard.check(plan(200, 1000), 0.0), Plan)
    assert isinstance(guard.check(plan(200, 800), pause), Plan)
    assert isinstance(guard.check(plan(200, 600), 2 * pause), Halt) == halts


def test_a_halt_remembers_nothing_and_clears_itself():
    guard = Guard()
    assert isinstance(guard.check(plan(600), 0.0), Halt)
    assert isinstance(guard.check(plan(600), 1.0), Halt)
    harmless = plan(10)
    assert guard.check(harmless, 2.0) is harmless


def test_approve_lets_exactly_one_plan_through():
    guard = Guard()
    guard.approved = "id600"
    assert isinstance(guard.check(plan(700), 0.0), Halt)
    approved = plan(600)
    assert guard.check(approved, 1.0) is approved
    assert isinstance(guard.check(plan(600), 2.0), Halt)


def test_what_was_approved_does_not_count_against_the_next_plan():
    guard = Guard()
    guard.approved = "id600"
    guard.check(plan(600, 1000), 0.0)
    assert isinstance(guard.check(plan(150, 400), 1.0), Plan)


def test_an_empty_approval_approves_nothing():
    guard = Guard()
    checked = guard.check(plan(0, 10, conflicts=3), 0.0, bare=True)
    assert isinstance(checked, Halt)


@pytest.mark.parametrize("mode", ["full", "roots"])
class TestRoots:
    """The rules on roots hold in both modes."""

    def test_an_empty_source_halts(self, mode):
        checked = Guard(mode).check(plan(0, 3, removals=3), 0.0, bare=True)
        assert isinstance(checked, Halt)
        assert "source is empty" in checked.reason
        assert checked.id == "id3"

    def test_an_empty_source_halts_also_where_all_was_edited_in_the_target(self, mode):
        """Conflicts whose source is missing leave the target too: into what was set aside."""
        assert isinstance(Guard(mode).check(plan(0, 3, conflicts=3), 0.0, bare=True), Halt)

    def test_an_empty_source_with_nothing_to_lose_goes_on(self, mode):
        made = plan(0, 0)
        assert Guard(mode).check(made, 0.0, bare=True) is made

    def test_an_empty_source_can_be_approved(self, mode):
        guard = Guard(mode)
        guard.approved = "id3"
        assert isinstance(guard.check(plan(0, 3, removals=3), 0.0, bare=True), Plan)

    def test_a_replaced_source_that_lacks_entries_halts(self, mode):
        checked = Guard(mode).check(plan(1, 1000), 0.0, replaced=True)
        assert isinstance(checked, Halt)
        assert "another directory" in checked.reason

    def test_a_replaced_source_that_lacks_nothing_is_adopted(self, mode):
        made = plan(0, 1000, removals=5)
        assert Guard(mode).check(made, 0.0, replaced=True) is made


def test_roots_mode_leaves_only_the_root_rules():
    made = plan(1000, 1000)
    assert Guard("roots").check(made, 0.0) is made


@pytest.mark.parametrize(("gone", "halts"), [(11, True), (10, False)])
@pytest.mark.parametrize("mode", ["roots", "full"])
def test_a_source_that_was_empty_has_to_be_filled_again(mode, gone, halts):
    guard = Guard(mode)
    checked = guard.check(plan(gone, 100), 0.0, emptied=True)
    assert isinstance(checked, Halt) == halts
    if halts:
        assert "still lacks 11 of 100" in checked.reason
        guard.approved = checked.id
        assert not isinstance(guard.check(plan(gone, 100), 0.0, emptied=True), Halt)
