"""The stateful test of both sides against the table, for minutes and with other edits each time."""

from __future__ import annotations

import pytest

from tests.property.test_stateful import machine


@pytest.mark.slow
@pytest.mark.timeout(1200)
class TestMirrorForLong(machine(1500, 60, derandomize=False)):  # type: ignore[misc]
    pass
