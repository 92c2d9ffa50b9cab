"""`syncd status`: asks the running watch."""

from __future__ import annotations

from typing import Any

import click

from syncd.cli.output import json_option, pair_arguments, write_json


@click.command(name="status", epilog="Example: syncd status /srv/mirrors/shop")
@pair_arguments
@json_option
def command(source: bytes, target: bytes | None, as_json: bool) -> None:
    """Show where a pair stands. Exit code 4 if nothing watches it."""
    from syncd.control.client import ask, find_pair

    _, _, state = find_pair(source, target)
    answer: dict[str, Any] = ask(state, "status")
    if as_json:
        write_json(answer)
        return
    click.echo(f"{answer['source']['path']} → {answer['target']['path']}")
    click.echo(answer["line"])
    bound = f", every change is seen within {answer['bound']:.1f} s" if answer["bound"] else ""
    click.echo(f"kernel {answer['kernel']}, watcher {answer['watcher']} ({answer['watcher_reason']}){bound}")
    if answer["state"] == "starting":
        click.echo(f"so far: {answer['progress']['entries']} entries, {answer['progress']['bytes']} bytes")
    for problem in answer["problems"]:
        click.echo(f"problem  {problem['text']}")
    for name, count in answer["drift"].items():
        click.echo(f"drift  {count} {name} by the container")
    if answer["not_mirrored"]:
        click.echo(f"not mirrored  {answer['not_mirrored']} FIFOs, sockets or devices")
    for note in answer["notes"]:
        click.echo(f"note  {note}")
