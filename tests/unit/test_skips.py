"""What counts as an allowed skip."""

from __future__ import annotations

from tests.skips import allowed, unexpected


def test_the_list_allows_what_it_names_and_nothing_else() -> None:
    npm = ("tests/integration/test_git.py::test_npm[native]", "npm is not installed")
    other = ("tests/integration/test_git.py::test_npm[native]", "I did not feel like it")
    assert unexpected([npm, other]) == [other]


def test_every_line_of_the_list_has_two_patterns() -> None:
    assert allowed()
    assert all(test.startswith("tests/") and reason for test, reason in allowed())
