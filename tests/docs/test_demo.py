"""`make demo` works, and leaves nothing behind however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bench.demo import EDITS

ROOT = Path(__file__).resolve().parents[2]


def start(temporary: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-u", "-m", "bench.demo"]
    env = os.environ | {"TMPDIR": str(temporary)}
    return subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.mark.kernel
def test_the_demo_shows_the_lag_of_each_edit(tmp_path: Path) -> None:
    with start(tmp_path) as demo:
        said, _ = demo.communicate(timeout=50)
    assert demo.returncode == 0, said
    assert len([line for line in said.splitlines() if line.startswith(tuple(name for name, _ in EDITS))]) == len(EDITS)
    assert said.endswith("compared byte by byte: equal\n")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demo_leaves_nothing_behind(tmp_path: Path, number: signal.Signals) -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a suite in the background ignores it
    try:
        demo = start(tmp_path)
    finally:
        signal.signal(signal.SIGINT, before)
    with demo:
        assert demo.stdout is not None
        while "in sync after" not in demo.stdout.readline():
            pass
        demo.send_signal(number)
        said, _ = demo.communicate(timeout=30)
    assert demo.returncode == 130, said
    assert list(tmp_path.iterdir()) == []
