"""`syncd drift`: what the container changed, and what was set aside."""

from __future__ import annotations

import os
from pathlib import Path

import click

from syncd.cli.options import RULES, with_options, with_rules_of_watch
from syncd.cli.output import json_option, pair_arguments, write_json
from syncd.model.change import DRIFT, Line
from syncd.model.path import display, path_fields
from syncd.model.settings import Settings

WORDS = {Line.LOST: "removed", Line.EDITED: "edited", Line.MADE: "made"}


@click.command(name="drift", epilog="Example: syncd drift /srv/mirrors/shop")
@pair_arguments
@json_option
@with_options(RULES)
def command(settings: Settings, source: bytes, target: bytes | None, as_json: bool) -> None:
    """List what the container removed, edited or made, and what was set aside. `pull` brings it back."""
    from syncd.control.client import find_pair
    from syncd.control.opening import resolve
    from syncd.control.reading import read
    from syncd.engine.staging import kept, places
    from syncd.kernel.choose import load

    source, target, state = find_pair(source, target)
    settings = with_rules_of_watch(resolve(source, target, settings, create=False), state)
    reading = read(settings, load(), state)
    where = [*places(state, Path(os.fsdecode(settings.target)))]
    where += places(state / "pull", Path(os.fsdecode(settings.source)), ".pull")  # what the source held before a `pull`
    aside = [(place, batch, path) for place in where for batch, path in kept(place)]
    if as_json:
        rows = [path_fields(row.path) | {"line": str(line)} for line in DRIFT for row in reading.drifted(line)]
        listed = [path_fields(path) | {"batch": batch, "below": str(place)} for place, batch, path in aside]
        write_json({"schema": 1, "drift": rows, "set_aside": listed})
        return
    for line in DRIFT:
        for row in reading.drifted(line):
            click.echo(f"{WORDS[line]}  {display(row.path)}")
    for place, batch, path in aside:
        what = "unfinished" if batch.endswith("-unfinished") else "set aside"
        click.echo(f"{what}  {display(path)}  ({place}/conflicts/{batch})")
