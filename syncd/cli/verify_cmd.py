"""`syncd verify`: both sides compared by content."""

from __future__ import annotations

import click

from syncd.cli.diff_cmd import is_behind
from syncd.cli.options import RULES, with_options, with_rules_of_watch
from syncd.cli.output import json_option, pair_arguments, write_json
from syncd.errors import NotInSync
from syncd.model.change import DRIFT, Line, Row
from syncd.model.path import display, path_fields
from syncd.model.plan import Verb
from syncd.model.settings import Settings

SHOWN = 20
GROUPS = ("missing", "different", "left_over", "unreadable", "drifted")
LINES = (Line.CHANGED, Line.CONFLICT, Line.AGREED, Line.GONE, *DRIFT)


@click.command(name="verify", epilog="Example: syncd verify ./shop /srv/mirrors/shop --strict")
@pair_arguments
@click.option("--strict", is_flag=True, default=False, help="What the container changed counts as different, too.")
@json_option
@with_options(RULES)
def command(settings: Settings, source: bytes, target: bytes | None, strict: bool, as_json: bool) -> None:
    """Compare both sides by kind, mode, time, content and link text. Changes nothing; exit code 3 if they differ."""
    from syncd.control.client import find_pair
    from syncd.control.opening import resolve
    from syncd.control.reading import read
    from syncd.kernel.choose import load

    source, target, state = find_pair(source, target)
    settings = with_rules_of_watch(resolve(source, target, settings, create=False), state)
    reading = read(settings, load(), state, by_content=True)
    groups: dict[str, list[bytes]] = {name: [] for name in GROUPS}
    for line in LINES:
        for row in reading.diff.rows(line):
            if (name := _group(line, reading.verb(line, row), row)) is not None:
                groups[name].append(row.path)
    groups["unreadable"] += [trouble.path for tree in reading.sight for trouble in tree.troubles]
    drifted = groups["drifted"]
    bad = [path for name in GROUPS if name != "drifted" or strict for path in groups[name]]
    if as_json:
        listed = {name: [path_fields(path) for path in paths] for name, paths in groups.items()}
        write_json({"schema": 1, "equal": not bad, "entries": len(reading.sight.source), **listed})
    else:
        for name, paths in groups.items():
            for path in paths[:SHOWN]:
                click.echo(f"{name.replace('_', ' ')}  {display(path)}")
            if len(paths) > SHOWN:
                click.echo(f"{name.replace('_', ' ')}  … and {len(paths) - SHOWN} more")
        click.echo(f"{len(reading.sight.source)} entries compared, {len(bad)} differ, {len(drifted)} drifted", err=True)
    if bad:
        raise NotInSync(f"{len(bad)} entries differ")


def _group(line: Line, verb: Verb, row: Row) -> str | None:
    """Where a row is listed, from what a cycle would do there."""
    if line is Line.AGREED:
        return "different" if is_behind(row) else None
    if row.source is None:
        return "left_over" if verb is not Verb.LEAVE and line is not Line.MADE else "drifted"
    if verb is Verb.LEAVE:
        return "drifted" if line in DRIFT else "unreadable"
    return "different" if row.target else "missing"
