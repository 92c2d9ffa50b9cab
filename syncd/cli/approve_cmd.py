"""`syncd approve ID`."""

from __future__ import annotations

import click

from syncd.cli.output import BYTES, json_option, write_json
from syncd.control.status import pair_name
from syncd.errors import NothingRunning, Refused, UsageError
from syncd.model.path import path_fields
from syncd.system.dirs import pair_dir

Named = tuple[bytes, bytes]  # source and target


@click.command(name="approve", epilog="Example: syncd approve 3f2a9c0e51b7 /srv/mirrors/shop")
@click.argument("identity", metavar="ID")
@click.argument("source", type=BYTES, metavar="[[SOURCE] TARGET]", required=False)
@click.argument("target", type=BYTES, required=False)
@json_option
def command(identity: str, source: bytes | None, target: bytes | None, as_json: bool) -> None:
    """Let exactly the set of removals named ID through. Without TARGET, the watch that waits for it is found.

    Refused if several wait for the same ID.
    """
    from syncd.control.client import ask, find_pair
    from syncd.system.locks import live_targets

    pairs: list[Named]
    if source is not None:
        pairs = [find_pair(source, target)[:2]]
    else:
        pairs = [(holder.source, holder.target) for holder in live_targets()]
    waiting = [pair for pair in pairs if _waits_for(pair) == identity]
    if not pairs:
        raise NothingRunning(
            "no watch is running; give the ID to the next run: syncd watch (or sync) SOURCE TARGET --approve ID"
        )
    if not waiting:
        raise UsageError(
            f"no watch waits for {identity}; see: syncd status TARGET. A sync takes it itself: syncd sync SOURCE TARGET --approve ID"
        )
    if len(waiting) > 1:
        listed = "".join(f"\n  {pair_name(*pair)}" for pair in waiting)
        raise Refused(f"{len(waiting)} pairs wait for {identity}; name the one that is meant: {listed}")
    (pair,) = waiting
    done = ask(pair_dir(*pair), "approve", 600.0, id=identity)
    if as_json:
        write_json({**done, "source": path_fields(pair[0]), "target": path_fields(pair[1])})
    else:
        click.echo(f"approved: {done['removed']} removed ({pair_name(*pair)})")


def _waits_for(pair: Named) -> str | None:
    """The ID that the watch of a pair waits for."""
    from syncd.control.client import ask

    try:
        halt = ask(pair_dir(*pair), "status")["halt"]
    except NothingRunning:
        return None
    return str(halt["id"]) if halt and halt["id"] else None
