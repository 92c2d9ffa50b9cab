"""`syncd flush`: a barrier."""

from __future__ import annotations

import math
import time
from typing import Any

import click

from syncd.cli.output import json_option, pair_arguments, write_json
from syncd.errors import UsageError

A_DAY = 86_400.0  # seconds; longer than anybody waits, and no infinity


@click.command(name="flush", epilog="Example: syncd flush /srv/mirrors/shop && curl localhost:8000")
@pair_arguments
@click.option("--timeout", type=click.FloatRange(0, A_DAY), default=30.0, show_default=True, help="Seconds.")
@json_option
def command(source: bytes, target: bytes | None, timeout: float, as_json: bool) -> None:
    """Return when what was written before the call is readable in the target.

    Exit codes: 0 it is; 3 something is not (named); 4 nothing watches the pair; 5 halted; 6 not in time.
    """
    from syncd.control.client import ask, find_pair

    if math.isnan(timeout):
        raise UsageError("--timeout nan: give a number of seconds")
    _, _, state = find_pair(source, target)
    began = time.monotonic()
    answer: dict[str, Any] = ask(state, "flush", timeout + 2.0, limit=timeout)
    if as_json:
        write_json(answer | {"took": round(time.monotonic() - began, 6)})
