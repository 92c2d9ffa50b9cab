"""How the speed table judges."""

from __future__ import annotations

import pytest

from bench.axes import Log
from bench.table import Row, judge, render


def log_of(values: list[float], others: list[float]) -> Log:
    log = Log()
    for round_, value in enumerate(values):
        log.add("lag", "native", round_, "ms", value)
    for round_, value in enumerate(others):
        log.add("lag", "floor", round_, "ms", value)
    return log


LAG = Row("lag", "lag", "ms", "native", "floor", 2.5, 1.3)
BURST = Row("burst", "lag", "ms", "native", "floor", 1.5, 1.0, plus=60)
PEER = Row("peer", "lag", "ms", "native", "floor", 1.0, strict=True)


@pytest.mark.parametrize(
    ("row", "values", "others", "verdict"),
    [
        (LAG, [1.2, 1.2, 9.9], [1.0, 1.0, 1.0], "pass, aim"),
        (LAG, [2.0, 2.0, 1.0], [1.0, 1.0, 1.0], "pass"),
        (LAG, [3.0, 3.0, 1.0], [1.0, 1.0, 1.0], "MISS"),
        (LAG, [4.0, 2.0, 2.0], [4.0, 1.0, 0.5], "pass"),  # ratios within a round: 1, 2, 4
        (BURST, [59.0], [0.0], "pass"),
        (BURST, [61.0], [0.0], "MISS"),
        (PEER, [1.0], [1.0], "MISS"),
        (PEER, [0.9], [1.0], "pass"),
    ],
)
def test_verdicts(row: Row, values: list[float], others: list[float], verdict: str) -> None:
    result = judge(log_of(values, others), row)
    assert result is not None
    assert result.verdict == verdict


def test_what_was_not_measured_has_no_verdict() -> None:
    assert judge(log_of([1.0], []), LAG) is None
    assert judge(Log(), LAG) is None


def test_a_failed_engine_misses_and_says_why() -> None:
    text = render([LAG], Log(), lambda _: "not equal")
    assert "not equal" in text
    assert "MISS" in text
