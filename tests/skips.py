"""A test that is skipped proves nothing: in CI every skip has to stand in `allowed_skips.txt`.

A plugin that conftest.py names. Without CI=true skips are only reported, since a developer's machine may lack this or that.
"""

from __future__ import annotations

import fnmatch
import os
from pathlib import Path

import pytest

LIST = Path(__file__).with_name("allowed_skips.txt")
skipped: list[tuple[str, str]] = []


def allowed() -> list[tuple[str, str]]:
    """(pattern of test ids, pattern of reasons) of each line that is no comment."""
    lines = [line.partition("#")[0] for line in LIST.read_text().splitlines()]
    return [(test.strip(), reason.strip()) for test, bar, reason in (line.partition("|") for line in lines) if bar]


def unexpected(found: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Those of (test, reason) that no line of the list allows."""
    return [
        (test, reason)
        for test, reason in found
        if not any(fnmatch.fnmatchcase(test, t) and fnmatch.fnmatchcase(reason, r) for t, r in allowed())
    ]


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        skipped.append((report.nodeid, reason.removeprefix("Skipped: ")))


def pytest_sessionfinish(session: pytest.Session) -> None:
    worker = hasattr(session.config, "workerinput")
    if unexpected(skipped) and os.environ.get("CI") == "true" and not worker and session.exitstatus == 0:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for test, reason in unexpected(skipped):
        terminalreporter.write_line(f"skip that is not in {LIST.name}: {test} | {reason}", red=True)
