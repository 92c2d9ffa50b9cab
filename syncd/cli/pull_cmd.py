"""`syncd pull`: bring the container's changes back into the source."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import click

from syncd.cli.options import RULES, with_options, with_rules_of_watch
from syncd.cli.output import BYTES, json_option, write_json
from syncd.errors import Interrupted, NotInSync, Refused, UsageError
from syncd.model.path import check, display, is_within, path_fields
from syncd.model.settings import Settings

if TYPE_CHECKING:
    from syncd.engine.pull import Pulled
    from syncd.kernel.contract import Control


@click.command(name="pull", epilog="Example: syncd pull ./shop /srv/mirrors/shop package-lock.json")
@click.argument("source", type=BYTES)
@click.argument("target", type=BYTES)
@click.argument("paths", type=BYTES, nargs=-1, required=True, metavar="PATH...")
@click.option("--force", is_flag=True, default=False, help="Also where the source changed; its version is set aside.")
@click.option("--dry-run", is_flag=True, default=False, help="Show what would come back; touch nothing.")
@json_option
@with_options(RULES)
def command(
    settings: Settings,
    source: bytes,
    target: bytes,
    paths: tuple[bytes, ...],
    force: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Bring what the container made, edited or removed at PATH (relative, and below it) back into SOURCE.

    What SOURCE held there is set aside in the state directory (syncd drift names the place), also if it had further
    names (hard links): those stay with it. Refused where SOURCE changed, too, and where TARGET was cleared. What cannot
    be read on either side is named, and stays as it is.
    """
    from syncd.control.opening import resolve
    from syncd.engine.baseline import Baseline
    from syncd.engine.covered import covered
    from syncd.engine.ignore import compile_rules
    from syncd.engine.pull import pull
    from syncd.kernel.choose import load
    from syncd.system.dirs import make_pair_dir, pair_dir
    from syncd.system.identity import identity

    settings = resolve(source, target, settings, create=False)
    named = [_relative(path, settings) for path in paths]
    kernel = load()
    state = pair_dir(settings.source, settings.target)
    notes = Baseline(kernel, state, reading=True).notes
    met = notes.get("met") and os.path.isdir(settings.target) and notes.get("target") == identity(settings.target)
    if not met:
        raise Refused(
            f"TARGET {display(settings.target)} is not the directory that SOURCE was mirrored into: what it lacks, nobody "
            "removed there. Nothing was pulled; run syncd sync first, or copy by hand"
        )
    state = make_pair_dir(settings.source, settings.target)
    settings = with_rules_of_watch(settings, state, needed=True)
    baseline = Baseline(kernel, state, reading=True)
    rules = compile_rules(kernel, settings)
    hidden = covered(settings.target, baseline.base, rules)
    roots = kernel.open_root(settings.source), kernel.open_root(settings.target, hidden)
    control = kernel.control()
    try:
        done = _until_end(
            control,
            lambda: pull(
                kernel, settings, state, baseline.base, rules, roots, named, control, force=force, dry_run=dry_run
            ),
        )
    finally:
        for root in roots:
            root.close()
    (_show_json if as_json else _show)(done, dry_run)
    for path, why in done.notes:
        click.echo(f"nothing to pull at {display(path) or '.'}: {why}", err=True)
    if done.interrupted:
        raise Interrupted("interrupted; what came back so far is listed, and the rest is as it was")
    if done.problems:
        raise NotInSync(f"{len(done.problems)} entries could not be pulled")


def _until_end(control: Control, work: Callable[[], Pulled]) -> Pulled:
    """Do `work` in a thread, so that a signal counts at once: the first one cancels, a second one ends the process."""
    from syncd.cli.ending import Ending

    ending = Ending(lambda: setattr(control, "cancelled", True))
    ending.listen()
    with ThreadPoolExecutor(1, initializer=ending.leave_to_main) as thread:
        return thread.submit(work).result()


def _show(done: Pulled, dry_run: bool) -> None:
    for path in done.paths:
        would, did = ("would remove", "removed") if path in done.removed else ("would pull", "pulled")
        click.echo(f"{would if dry_run else did}  {display(path)}")
    for path, kept in done.aside:
        click.echo(f"set aside  {display(path)}  ({display(kept)})")
    for _, text in done.problems:
        click.echo(f"problem  {text}", err=True)


def _show_json(done: Pulled, dry_run: bool) -> None:
    write_json(
        {
            "schema": 1,
            "dry_run": dry_run,
            "interrupted": done.interrupted,
            "pulled": [
                path_fields(path) | {"action": "remove" if path in done.removed else "put"} for path in done.paths
            ],
            "set_aside": [
                path_fields(path) | {"kept": kept.decode("utf-8", "backslashreplace")} for path, kept in done.aside
            ],
            "problems": [path_fields(path) | {"text": text} for path, text in done.problems],
        }
    )


def _relative(given: bytes, settings: Settings) -> bytes:
    if not given:  # an unset variable of a script
        raise UsageError("PATH is empty; for everything write .")
    path = os.path.normpath(given)
    if is_within(path, settings.target):
        path = os.path.relpath(path, settings.target)
    try:
        return check(b"" if path == b"." else path)
    except ValueError:
        raise UsageError(f"{display(given)}: give a path relative to the roots") from None
