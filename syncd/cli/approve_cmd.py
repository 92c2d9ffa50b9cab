"""`syncd approve ID`."""

from __future__ import annotations

import click

from syncd.cli.output import BYTES, json_option, write_json
from syncd.errors import NothingRunning, UsageError


@click.command(name="approve", epilog="Example: syncd approve 3f2a9c0e51b7 /srv/mirrors/shop")
@click.argument("identity", metavar="ID")
@click.argument("source", type=BYTES, metavar="[[SOURCE] TARGET]", required=False)
@click.argument("target", type=BYTES, required=False)
@json_option
def command(identity: str, source: bytes | None, target: bytes | None, as_json: bool) -> None:
    """Let exactly the set of removals named ID through. Without TARGET, the watch that waits for it is found."""
    from syncd.control.client import ask, find_pair
    from syncd.system.dirs import pair_dir
    from syncd.system.locks import live_targets

    if source is not None:
        states = [find_pair(source, target)[2]]
    else:
        states = [pair_dir(holder.source, holder.target) for holder in live_targets()]
    for state in states:
        try:
            halt = ask(state, "status")["halt"]
        except NothingRunning:
            continue
        if halt and halt["id"] == identity:
            done = ask(state, "approve", 600.0, id=identity)
            if as_json:
                write_json(done)
            else:
                click.echo(f"approved: {done['removed']} removed")
            return
    if not states:
        raise NothingRunning(
            "no watch is running; give the ID to the next run: syncd watch (or sync) SOURCE TARGET --approve ID"
        )
    raise UsageError(
        f"no watch waits for {identity}; see: syncd status TARGET. A sync takes it itself: syncd sync SOURCE TARGET --approve ID"
    )
