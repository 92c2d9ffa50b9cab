"""What a command imports: starts are short because little is loaded."""

from __future__ import annotations

import subprocess
import sys

import pytest

MAIN = """
import sys
from syncd.cli.main import main
try:
    main()
except SystemExit:
    pass
print(*sorted({name.partition(".")[0] for name in sys.modules}))
"""


def modules(code: str, *arguments: str) -> set[str]:
    """Top-level modules that are loaded after `code`, which prints them last; no terminal is attached."""
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "arguments",
    [("status", "/no/s", "/no/t"), ("flush", "/no/s", "/no/t"), ("watch", "--once", "{s}", "{t}")],
    ids=lambda arguments: arguments[0],
)
def test_without_a_terminal_neither_pydantic_nor_rich(xdg, arguments):
    (xdg / "s").mkdir()
    (xdg / "s" / "a").touch()
    loaded = modules(MAIN, *(text.format(s=xdg / "s", t=xdg / "t") for text in arguments))
    assert "syncd" in loaded
    assert loaded.isdisjoint({"pydantic", "rich", "watchdog", "pyinotify", "platformdirs"})
    assert (xdg / "t" / "a").exists() == (arguments[0] == "watch")


@pytest.mark.parametrize("command", ["status", "flush"])
def test_asking_loads_no_event_loop(xdg, command):
    loaded = modules(MAIN, command, "/no/s", "/no/t")
    assert loaded.isdisjoint({"asyncio", "uvloop"})


def test_the_group_loads_no_command():
    loaded = modules("import sys, syncd.cli.main; print(*sys.modules)")
    assert not [name for name in loaded if name.endswith("_cmd")]
    assert "asyncio" not in loaded


def test_one_cycle_loads_no_event_loop(xdg):
    (xdg / "s").mkdir()
    assert modules(MAIN, "sync", str(xdg / "s"), str(xdg / "t")).isdisjoint({"asyncio", "uvloop"})


@pytest.mark.parametrize("name", ["syncd.model.plan", "syncd.engine.settle", "syncd.engine.plan", "syncd.engine.guard"])
def test_deciders_load_nothing_that_does(name):
    """No clock and no disk at hand: what was loaded by the interpreter itself does not count."""
    code = (
        f"import sys, dataclasses, enum, typing; old = set(sys.modules); import {name}; print(*set(sys.modules) - old)"
    )
    assert modules(code).isdisjoint({"asyncio", "subprocess", "socket", "pathlib", "time", "select", "threading"})
