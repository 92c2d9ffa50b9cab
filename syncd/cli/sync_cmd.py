"""`syncd sync SOURCE TARGET`."""

from __future__ import annotations

from typing import Any

import click

from syncd.cli.options import RULES, WRITING, with_options
from syncd.cli.output import BYTES
from syncd.model.settings import Settings


@click.command(name="sync", epilog="Example: syncd sync ./shop /srv/mirrors/shop --dry-run")
@click.argument("source", type=BYTES)
@click.argument("target", type=BYTES)
@click.option("--dry-run", is_flag=True, default=False, help="Show what would be done; touch nothing.")
@click.option("--approve", metavar="ID", default=None, help="Let this halted set of removals through.")
@click.option("--json", "as_json", is_flag=True, default=False, help="Print one JSON object.")
@click.option("-v", "--verbose", is_flag=True, default=False, help="Name every path that is written.")
@with_options(RULES, WRITING)
def command(settings: Settings, **given: Any) -> None:
    """Make TARGET equal to SOURCE once.

    If a watch holds the pair, it is asked for the cycle.
    """
    from syncd.cli.running import run

    run(settings, once=True, watcher="none", **given)
