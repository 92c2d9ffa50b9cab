"""`syncd diff`: what a cycle would do."""

from __future__ import annotations

import click

from syncd.cli.options import RULES, WRITING, with_options
from syncd.cli.output import json_option, pair_arguments, write_json
from syncd.model.change import DRIFT, Line
from syncd.model.path import display, path_fields
from syncd.model.plan import Verb
from syncd.model.settings import Settings

SIGNS = {Line.CHANGED: "put", Line.GONE: "remove", Line.CONFLICT: "set aside and put", Line.UNKNOWN: "cannot read"}


@click.command(name="diff", epilog="Example: syncd diff ./shop /srv/mirrors/shop")
@pair_arguments
@json_option
@with_options(RULES, WRITING)
def command(settings: Settings, source: bytes, target: bytes | None, as_json: bool) -> None:
    """Show what a cycle would do, and what the container changed. Writes nothing."""
    from syncd.control.client import find_pair
    from syncd.control.opening import resolve

    source, target, _ = find_pair(source, target)
    show_diff(resolve(source, target, settings, create=False), as_json=as_json)


def show_diff(settings: Settings, *, as_json: bool) -> None:
    """Print the rows of every line that is not in order."""
    from syncd.control.reading import read
    from syncd.kernel.choose import load
    from syncd.system.dirs import pair_dir

    reading = read(settings, load(), pair_dir(settings.source, settings.target))
    lines = [*SIGNS, *DRIFT]
    if as_json:
        rows = [
            path_fields(row.path) | {"line": str(line), "verb": str(reading.plan.verbs.get(line, Verb.LEAVE))}
            for line in lines
            for row in reading.diff.rows(line)
        ]
        counts = {str(line): count for line, count in reading.plan.counts.items()}
        write_json({"schema": 1, "counts": counts, "id": reading.plan.id, "rows": rows})
        return
    for line in lines:
        what = SIGNS.get(line, f"drift: {line}")
        for row in reading.diff.rows(line):
            click.echo(f"{what}  {display(row.path)}")
    counts_text = ", ".join(f"{reading.plan.counts[line]} {what}" for line, what in SIGNS.items())
    drifted = sum(reading.plan.counts[line] for line in DRIFT)
    click.echo(f"{counts_text}; {drifted} drifted", err=True)
