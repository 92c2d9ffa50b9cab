"""`plan_mirror` is a table, and so is its test: a row for each line × policy."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from syncd.engine.plan import POLICIES, plan_mirror
from syncd.model.change import Line
from syncd.model.plan import Verb
from tests.fakes import FakeDiff

TABLE = tomllib.loads((Path(__file__).parents[2] / "cases" / "plan" / "table.toml").read_text())
ROWS = TABLE["line"]
CASES = [(row, policy) for row in ROWS for policy in ("keep", "mirror", "damaged", "cleared")]


def test_the_table_has_every_line():
    assert [row["line"] for row in ROWS] == [str(line) for line in Line]
    assert POLICIES.keys() == {"keep", "mirror"}


@pytest.mark.parametrize(("row", "policy"), CASES, ids=[f"{row['line']}-{policy}" for row, policy in CASES])
def test_row(row, policy):
    counts = {Line(row["line"]): 3}
    if policy == "cleared":
        counts = {Line.LOST: 200, Line(row["line"]): 200}
    drift = policy if policy in POLICIES else "keep"
    plan = plan_mirror(FakeDiff(counts), drift, 300, damaged=policy == "damaged")
    assert plan.verbs.get(Line(row["line"]), Verb.LEAVE) == row[policy]


@pytest.mark.parametrize("case", TABLE["cleared"], ids=lambda case: case["name"])
def test_cleared(case):
    plan = plan_mirror(FakeDiff({Line.LOST: case["lost"]}), "keep", case["known"])
    assert (plan.verbs[Line.LOST] is Verb.PUT) == case["cleared"]
    assert [f"lost {case['lost']} of {case['known']}" in note for note in plan.notes] == [True] * case["cleared"]


def test_a_cleared_target_is_not_told_of_where_it_is_made_again_anyway():
    diff = FakeDiff({Line.LOST: 200})
    assert plan_mirror(diff, "mirror", 200).notes == ()
    assert plan_mirror(diff, "keep", 200, damaged=True).notes == ()


@pytest.mark.parametrize("damaged", [False, True])
@pytest.mark.parametrize("drift", POLICIES)
def test_counts_and_removals_are_the_diffs(drift, damaged):
    counts = {line: number for number, line in enumerate(Line)}
    plan = plan_mirror(FakeDiff(counts, unexplained=2, id="abc"), drift, 1000, damaged=damaged)
    assert plan.counts == counts
    assert (plan.removals, plan.unexplained, plan.known, plan.id) == (counts[Line.GONE], 2, 1000, "abc")
    assert plan.acts == sum(n for line, n in counts.items() if plan.verbs.get(line, Verb.LEAVE) is not Verb.LEAVE)


def test_policies_are_not_changed_by_a_plan():
    before = {name: dict(table) for name, table in POLICIES.items()}
    plan_mirror(FakeDiff({Line.LOST: 500}), "keep", 500, damaged=True)
    assert before == POLICIES


def test_the_docstring_shows_the_table():
    """The table at the top of the module says what the code does."""
    from syncd.engine import plan

    shown = {line.split()[0]: line for line in (plan.__doc__ or "").splitlines() if line.startswith("    ")}
    assert {str(line) for line in Line if line is not Line.SAME} <= shown.keys()
    for line, verb in POLICIES["keep"].items():
        word = {Verb.REPLACE: "set aside", Verb.REMOVE: "remove"}.get(verb, str(verb))
        assert word in shown[str(line)]


def test_an_approval_is_of_one_pair_only():
    diff = FakeDiff({Line.GONE: 3}, unexplained=3, id="abc")
    one, other = (plan_mirror(diff, "keep", 10, pair=pair).id for pair in (b"/s\0/t", b"/s\0/u"))
    assert one != other
    assert one == plan_mirror(diff, "keep", 10, pair=b"/s\0/t").id
    assert plan_mirror(FakeDiff({}), "keep", 10, pair=b"/s\0/t").id == ""
