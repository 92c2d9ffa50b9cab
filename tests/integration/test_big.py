"""A first copy of many files: it answers, it ends when it is told to, and the next one goes on from there."""

from __future__ import annotations

import json
import os
import signal
import statistics
import time
from pathlib import Path

import pytest

from tests.integration.watching import Watching, run
from tests.machine import eventually

pytestmark = pytest.mark.kernel

SLOW = [pytest.mark.slow, pytest.mark.timeout(1200)]


def make(where: Path, files: int) -> None:
    for number in range(files):
        if number % 200 == 0:
            folder = where / f"d{number // 20_000}" / f"e{number // 200}"
            folder.mkdir(parents=True)
        fd = os.open(folder / f"f{number}", os.O_WRONLY | os.O_CREAT)
        os.write(fd, b"%d\n" % number)
        os.close(fd)


@pytest.mark.parametrize("files", [6000, pytest.param(300_000, marks=SLOW)])
def test_a_first_copy_answers_ends_and_goes_on(tmp_path: Path, files: int) -> None:
    source, target, home = tmp_path / "source", tmp_path / "target", tmp_path / "home"
    make(source, files)
    watch = Watching(source, target, home)
    try:
        eventually(lambda: len(list(target.glob("d*/e*"))) > 2 if target.exists() else False, "nothing is copied", 300)
        answers = []
        copied = 0
        while len(answers) < 5:
            began = time.monotonic()
            answer = watch.run("status", "--json")
            answers.append(time.monotonic() - began)
            assert answer.returncode == 0, answer.stderr
            status = json.loads(answer.stdout)
            if status["state"] != "starting":
                break
            copied += 1
            assert status["progress"]["entries"] > 0
        assert copied, "no answer came while the copy ran"
        flushed = watch.run("flush", "--timeout", "0.2") if status["state"] == "starting" else None
        began = time.monotonic()
        watch.process.send_signal(signal.SIGINT)
        code = watch.process.wait(300)
        ended = time.monotonic() - began
        there = count(target)
        print(
            f"\n{files} files: status in {statistics.median(answers) * 1000:.0f} ms (a process of its own each), "
            f"at most {max(answers) * 1000:.0f} ms; ended {ended:.2f} s after SIGINT with {there} files copied"
        )
        assert code in (0, 130)
        assert 0 < there < files, "it ended only when all was copied"
        assert ended < 5.0
        if flushed is not None:
            assert flushed.returncode == 6
            assert "first copy" in flushed.stderr
    finally:
        watch.close()
    resumed = run("sync", str(source), str(target), "--json", env=watch.env, limit=600)
    assert resumed.returncode == 0, resumed.stderr
    record = json.loads(resumed.stdout)
    assert record["put"] <= files + files // 200 + 100 - there, "what was there is copied once more"
    assert count(target) == files
    assert record["drift"] == {}
    verified = run("verify", str(source), str(target), "--strict", env=watch.env, limit=600)
    assert verified.returncode == 0, verified.stdout


def count(top: Path) -> int:
    return sum(len(files) for _, _, files in os.walk(top))
