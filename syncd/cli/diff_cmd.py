"""`syncd diff`: what a cycle would do."""

from __future__ import annotations

import click

from syncd.cli.options import RULES, WRITING, gives_writing, with_options, with_rules_of_watch
from syncd.cli.output import json_option, pair_arguments, write_json
from syncd.model.change import DRIFT, Line, Row
from syncd.model.entry import Kind
from syncd.model.path import display, path_fields
from syncd.model.plan import Verb
from syncd.model.settings import Settings

LINES = (Line.CHANGED, Line.GONE, Line.CONFLICT, *DRIFT, Line.AGREED, Line.UNKNOWN)
BITS = 0o1777
ALWAYS = ("put", "remove", "set aside and put", "cannot read")  # summed up also where there are none


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


def show_diff(settings: Settings, *, as_json: bool, approve: str | None = None) -> None:
    """Print the rows of every line that is not in order, as a cycle would find them that `approve` was given to."""
    from syncd.control.client import is_watched
    from syncd.control.reading import read
    from syncd.kernel.choose import load
    from syncd.system.dirs import pair_dir

    state = pair_dir(settings.source, settings.target)
    if gives_writing(settings) and is_watched(state):
        click.echo(
            "syncd: a watch holds this pair: a cycle writes with its options, not with those given here", err=True
        )
    reading = read(with_rules_of_watch(settings, state), load(), state, approved=approve)
    plan, halt = reading.plan, reading.halt
    rows = [
        (line, row) for line in LINES for row in reading.diff.rows(line) if line is not Line.AGREED or is_behind(row)
    ]
    if as_json:
        listed = [
            path_fields(row.path) | {"line": str(line), "verb": str(reading.verb(line, row))} for line, row in rows
        ]
        counts = {str(line): count for line, count in plan.counts.items()}
        stop = None if halt is None else {"reason": halt.reason, "id": halt.id}
        write_json(
            {
                "schema": 1,
                "counts": counts,
                "id": plan.id,
                "halt": stop,
                "rows": listed,
                "opens": [path_fields(path) for path in reading.shut],
            }
        )
        return
    sums = dict.fromkeys(ALWAYS, 0)
    for line, row in rows:
        what = deed(line, reading.verb(line, row), row)
        sums[what] = sums.get(what, 0) + 1
        click.echo(f"{what}  {display(row.path)}")
    drifted = sum(sums.pop(f"drift: {line}", 0) for line in DRIFT)
    click.echo(f"{', '.join(f'{count} {what}' for what, count in sums.items())}; {drifted} drifted", err=True)
    if reading.shut:
        named = ", ".join(display(path) for path in reading.shut)
        click.echo(
            f"first a cycle would give this user the rights on these back, and look into them: {named}", err=True
        )
    if halt is not None:
        command = (
            f"syncd approve {halt.id} TARGET" if is_watched(state) else f"syncd sync SOURCE TARGET --approve {halt.id}"
        )
        advice = halt.told(command)
        click.echo(f"a cycle would do nothing of that: {advice}", err=True)


def deed(line: Line, verb: Verb, row: Row) -> str:
    """What a cycle would do at a path, in words."""
    if verb is Verb.LEAVE:
        if line in DRIFT:
            return f"drift: {line}"
        return "cannot read" if line is Line.UNKNOWN or row.source else "keep (holds what is not syncd's)"
    if verb is Verb.RECORD:
        return "set mode or time"
    if verb is Verb.REPLACE and row.target:
        return "set aside and put" if row.source else "set aside"
    return str(Verb.PUT if row.source else Verb.REMOVE)


def is_behind(row: Row) -> bool:
    """Whether the target of an equal entry has another mode, or a file or link another time."""
    if row.source is None or row.target is None:
        return False
    source, target = row.source.seen, row.target.seen
    late = row.source.kind is not Kind.DIR and source.mtime_ns != target.mtime_ns
    return late or (row.source.kind is not Kind.LINK and (source.mode ^ target.mode) & BITS != 0)
