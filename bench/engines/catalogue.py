"""All engines by name, with the command lines they are measured with."""

from __future__ import annotations

import sys
from pathlib import Path

from bench.engines.base import BENCH, SYNCD, Engine


def engines(programs: Path) -> dict[str, Engine]:
    """Every engine; `programs` is where the compiled ones stand."""
    peer = (sys.executable, str(BENCH / "engines" / "naive.py"))
    return {
        engine.name: engine
        for engine in (
            Engine("floor", "peer", (str(programs / "floor"),)),
            Engine("native", "syncd", (str(SYNCD), "watch"), kernel="native"),
            Engine("pure", "syncd", (str(SYNCD), "watch"), kernel="pure"),
            # watchdog tells every event at once; there is no delay to turn down
            Engine("watchdog", "peer", (*peer, "watchdog")),
            # debounce 50 ms and step 5 ms where its defaults are 1600 and 50
            Engine("watchfiles", "peer", (*peer, "watchfiles")),
        )
    }
