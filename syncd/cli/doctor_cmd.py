"""`syncd doctor`: what this machine can do, and what is in the way."""

from __future__ import annotations

import os
import platform
import sys
from typing import Any

import click

from syncd.cli.output import BYTES, json_option, write_json
from syncd.model.path import display


@click.command(name="doctor", epilog="Example: syncd doctor ./shop /srv/mirrors/shop")
@click.argument("source", type=BYTES, required=False)
@click.argument("target", type=BYTES, required=False)
@json_option
def command(source: bytes | None, target: bytes | None, as_json: bool) -> None:
    """Look at kernel body, limits and the filesystems of a pair. Changes nothing."""
    facts, warnings = _facts(source, target)
    if as_json:
        write_json({"schema": 1, "facts": facts, "warnings": warnings})
        return
    for name, value in facts.items():
        items = [f"{key} {number}" for key, number in value.items()] if isinstance(value, dict) else value
        click.echo(f"{name}: {', '.join(items) if isinstance(items, list) else items}")
    for warning in warnings:
        click.echo(f"warning: {warning}")


def _facts(source: bytes | None, target: bytes | None) -> tuple[dict[str, Any], list[str]]:
    from syncd import __version__
    from syncd.kernel.choose import chosen
    from syncd.system.dirs import runtime_dir, state_home
    from syncd.system.limits import limits

    body, reason = chosen()
    facts: dict[str, Any] = {
        "syncd": __version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}",
        "kernel body": f"{body} ({reason})",
        "state": str(state_home()),
        "runtime": str(runtime_dir()),
    }
    warnings = []
    if body == "pure" and sys.platform == "linux":
        warnings.append("the pure kernel is right but slow; install a Rust compiler and reinstall syncd")
    if (found := limits()) is not None:
        facts["inotify limits"] = found._asdict()
    for name, path in (("source", source), ("target", target)):
        if path is not None:
            _filesystem(name, path, facts, warnings)
    return facts, warnings


def _filesystem(name: str, path: bytes, facts: dict[str, Any], warnings: list[str]) -> None:
    from syncd.system.limits import shortage
    from syncd.system.mounts import events_lie, mount_of, mounts_below

    if not os.path.isdir(path):
        warnings.append(
            f"{name}: {display(path)} is no directory"
            if os.path.lexists(path)
            else f"{name}: {display(path)} is not there"
        )
        return
    mount = mount_of(path)
    if mount is None:
        warnings.append(f"{name}: no filesystem found")
        return
    facts[f"{name} filesystem"] = f"{mount.fstype} at {mount.point.decode('utf-8', 'backslashreplace')}"
    if name == "source" and (why := events_lie(mount.fstype)):
        warnings.append(f"source is {mount.fstype}: {why}; changes are found by polling")
    for below in mounts_below(path):
        facts.setdefault(f"mounts below {name}", []).append(below.point.decode("utf-8", "backslashreplace"))
    if name == "target" and not os.access(path, os.W_OK | os.X_OK):
        warnings.append(f"target: {display(path)} cannot be written; give this user the right, or mount it writable")
    if name == "source":
        unreadable: list[OSError] = []
        directories = sum(1 for _ in os.walk(path, onerror=unreadable.append))
        facts["source directories"] = directories
        if unreadable:
            named = ", ".join(display(os.fsencode(error.filename)) for error in unreadable[:3])
            warnings.append(
                f"source: {len(unreadable)} directories cannot be read, and what is in them is not mirrored: {named}"
            )
        if (text := shortage(directories)) is not None:
            warnings.append(text)
