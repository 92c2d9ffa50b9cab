"""`syncd watch SOURCE TARGET`."""

from __future__ import annotations

from typing import Any

import click

from syncd.cli.options import RULES, WRITING, with_options
from syncd.cli.output import BYTES
from syncd.model.settings import Settings


@click.command(
    name="watch",
    epilog="Example: syncd watch ./shop /srv/mirrors/shop --overlay node_modules",
)
@click.argument("source", type=BYTES)
@click.argument("target", type=BYTES)
@click.option("--once", is_flag=True, default=False, help="One full cycle, then end (the same as `sync`).")
@click.option("--dry-run", is_flag=True, default=False, help="Show what would be done; touch nothing.")
@click.option(
    "--watcher",
    type=click.Choice(["auto", "inotify", "pyinotify", "watchdog", "poll"]),
    default="auto",
    show_default=True,
    help="Who tells that something changed.",
)
@click.option("--approve", metavar="ID", default=None, help="Let this halted set of removals through.")
@click.option("--json", "as_json", is_flag=True, default=False, help="Print one JSON object a cycle.")
@click.option("-v", "--verbose", is_flag=True, default=False, help="Name every path that is written (diff of a cycle).")
@with_options(RULES, WRITING)
def command(settings: Settings, **given: Any) -> None:
    """Keep TARGET equal to SOURCE until stopped.

    TARGET is made if it is missing. What a container changes in it is kept and shown as drift.
    """
    from syncd.cli.running import run

    run(settings, **given)
