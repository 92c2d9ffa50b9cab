"""`syncd verify`: both sides compared by content."""

from __future__ import annotations

from collections.abc import Mapping

import click

from syncd.cli.diff_cmd import is_behind
from syncd.cli.options import RULES, with_options, with_rules_of_watch
from syncd.cli.output import json_option, pair_arguments, write_json
from syncd.errors import NotInSync
from syncd.kernel.contract import Base
from syncd.model.change import Line, Row
from syncd.model.entry import Kind
from syncd.model.path import display, path_fields
from syncd.model.settings import Settings

SHOWN = 20


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
    from syncd.engine.baseline import Baseline
    from syncd.kernel.choose import load

    source, target, state = find_pair(source, target)
    settings = with_rules_of_watch(resolve(source, target, settings, create=False), state)
    kernel = load()
    reading = read(settings, kernel, state, by_content=True)
    base = Baseline(kernel, state, reading=True).base
    rows = {line: reading.diff.rows(line) for line in (Line.CHANGED, Line.CONFLICT)}
    unread = [row.path for line in rows for row in rows[line] if _is_to_be_read(row, base)]
    root = kernel.open_root(settings.source)
    try:
        digests = dict(zip(unread, kernel.hash_many(root, unread, kernel.control()), strict=True))
    finally:
        root.close()
    drifted = [row.path for line in rows for row in rows[line] if _is_drift(row, base, digests)]
    theirs = set(drifted)
    missing, different = ([row.path for row in rows[line] if row.path not in theirs] for line in rows)
    different += [row.path for row in reading.diff.rows(Line.AGREED) if is_behind(row)]
    extra = [row.path for row in reading.diff.rows(Line.MADE)]
    left = [path for path in extra if (known := base.get(path)) is not None and known.kind is not Kind.DIR]
    drifted += [path for path in extra if path not in set(left)]
    unknown = [trouble.path for side in (reading.sight.source, reading.sight.target) for trouble in side.troubles]
    bad = [*missing, *different, *left, *unknown, *(drifted if strict else [])]
    groups = {"missing": missing, "different": different, "left_over": left, "unreadable": unknown, "drifted": drifted}
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


def _is_drift(row: Row, base: Base, digests: Mapping[bytes, bytes | int]) -> bool:
    """The source is what both sides agreed on, so the target is what changed."""
    known = base.get(row.path)
    if known is None or row.source is None or row.source.kind is not known.kind:
        return False
    if known.kind is Kind.FILE:
        digest = row.source.digest or digests.get(row.path)
        return row.source.seen == known.source or (digest is not None and digest == known.digest)
    return row.source.link == known.link


def _is_to_be_read(row: Row, base: Base) -> bool:
    """A file with another time, say, than both sides agreed on; the comparison had no need of its content."""
    known = base.get(row.path)
    if known is None or row.source is None or row.source.kind is not Kind.FILE or known.kind is not Kind.FILE:
        return False
    return row.source.digest is None and row.source.seen != known.source
