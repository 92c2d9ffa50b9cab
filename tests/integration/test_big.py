"""A first copy of many files: it answers, it ends when it is told to, and the next one goes on from there."""

from __future__ import annotations

import json
import os
import signal
import statistics
import time
from pathlib import Path

import pytest

from syncd.control.client import ask
from syncd.errors import SyncdError
from syncd.kernel.choose import chosen
from syncd.system.dirs import pair_dir
from tests.integration.watching import Watching, run
from tests.machine import eventually

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(240)]

SLOW = [pytest.mark.slow, pytest.mark.timeout(1200)]


def make(where: Path, files: int) -> None:
    for number in range(files):
        if number % 200 == 0:
            folder = where / f"d{number // 20_000}" / f"e{number // 200}"
            folder.mkdir(parents=True)
        fd = os.open(folder / f"f{number}", os.O_WRONLY | os.O_CREAT)
        os.write(fd, b"%d\n" % number)
        os.close(fd)


# The native kernel copies what the pure one needs to be interrupted in before anybody can ask.
FEW = 6000 if chosen()[0] == "pure" else 25_000


@pytest.mark.parametrize("files", [FEW, pytest.param(300_000, marks=SLOW)])
def test_a_first_copy_answers_ends_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: int) -> None:
    source, target, home = tmp_path / "source", tmp_path / "target", tmp_path / "home"
    make(source, files)
    watch = Watching(source, target, home)
    for name in ("XDG_STATE_HOME", "XDG_RUNTIME_DIR"):
        monkeypatch.setenv(name, watch.env[name])
    state = pair_dir(bytes(source), bytes(target))
    try:
        eventually(lambda: next(target.glob("d*/e*/f*"), None) is not None, "nothing is copied", 300)
        answers = []
        while len(answers) < 5:
            began = time.monotonic()
            status = ask(state, "status", 30)
            answers.append(time.monotonic() - began)
            assert status["state"] == "starting", "the copy was over before it could be asked"
            assert status["progress"]["entries"] > 0
        if files > FEW:  # a flush takes a second to give up, and the few are copied by then
            with pytest.raises(SyncdError, match="first copy") as refused:
                ask(state, "flush", limit=0.05)
            assert refused.value.exit_code == 6
        began = time.monotonic()
        watch.process.send_signal(signal.SIGINT)
        code = watch.process.wait(300)
        ended = time.monotonic() - began
        there = count(target)
        print(
            f"\n{files} files: status in {statistics.median(answers) * 1000:.0f} ms, "
            f"at most {max(answers) * 1000:.0f} ms; ended {ended:.2f} s after SIGINT with {there} files copied"
        )
        assert code == 130, "it is told from a watch that ended in sync"
        last = watch.report()
        assert (last["interrupted"], last["in_sync"]) == (True, False)
        assert "kept" in watch.errors()
        assert 0 < there < files, "it ended only when all was copied"
        assert ended < 5.0
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
