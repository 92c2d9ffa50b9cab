"""The options that shape a pair, shared by `watch`, `sync`, `diff`, `verify` and `explain`."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from syncd.errors import Refused, SyncdError, UsageError
from syncd.model.path import check
from syncd.model.settings import RULE_NAMES, Settings

NAMES = ("ignore", "ignore_from", "overlay", "vcs", "gitignore", "write", "drift", "guard", "adopt", "owner")
HIGHEST_ID = 2**32 - 2  # one more, -1, tells the kernel to leave it as it is
WRITING_NAMES = ("write", "drift", "guard", "adopt", "owner")

RULES = (
    click.option("--ignore", multiple=True, metavar="PATTERN", help="Leave out what matches (.gitignore grammar)."),
    click.option("--ignore-from", multiple=True, metavar="FILE", help="Read patterns from a file."),
    click.option("--overlay", multiple=True, metavar="DIR", help="Never touch this directory of the target."),
    click.option("--vcs", is_flag=True, default=False, help="Mirror .git, .hg, .svn and .jj too."),
    click.option("--gitignore", is_flag=True, default=False, help="Leave out what .gitignore files leave out."),
)
WRITING = (
    click.option("--write", type=click.Choice(["auto", "replace", "inplace"]), default="auto", show_default=True,
                 help="Replace files by rename, or write small ones in place."),
    click.option("--drift", type=click.Choice(["keep", "mirror"]), default="keep", show_default=True,
                 help="Keep what the container changed, or set it aside and mirror the source."),
    click.option("--guard", type=click.Choice(["full", "roots"]), default="full", show_default=True,
                 help="Halt at unexplained mass removals, or only when a root vanished."),
    click.option("--adopt", is_flag=True, default=False,
                 help="At a first meeting set aside what differs in TARGET and go on."),
    click.option("--owner", metavar="UID:GID", default=None, help="Owner of everything in the target (as root)."),
)  # fmt: skip


def with_options(*groups: tuple[Callable[[Any], Any], ...]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Add options and hand them to the command as one `settings` argument (paths not yet resolved)."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(command)
        def run(**given: Any) -> Any:
            values = {name: given.pop(name) for name in NAMES if name in given}
            return command(settings=settings(**values), **given)

        wrapped: Callable[..., Any] = run
        for group in reversed(groups):
            for option in reversed(group):
                wrapped = option(wrapped)
        return wrapped

    return decorate


def with_rules_of_watch(settings: Settings, state: Path, *, needed: bool = False) -> Settings:
    """Take over the rules of the watch that runs on the pair. Where others were given, they count, and that is said.

    So is it where somebody uses the pair and does not tell his rules. Raises Refused if they are `needed` then.
    """
    from syncd.control.client import rules_of_watch

    given = {name: getattr(settings, name) for name in RULE_NAMES}
    plain = given == {name: Settings._field_defaults[name] for name in given}
    try:
        theirs = rules_of_watch(state)
    except SyncdError as error:
        silent = f"a process uses this pair and does not tell its rules ({error})"
        if needed and plain:
            raise Refused(f"{silent}. Nothing was touched; give the rules here, or stop it first") from None
        click.echo(f"syncd: {silent}; looking {'without any' if plain else 'with those given here'}", err=True)
        return settings
    if theirs is None or given == theirs:
        return settings
    if plain:
        return settings._replace(**theirs)
    click.echo("syncd: the watch of this pair has other rules; those given here are used", err=True)
    return settings


def gives_writing(settings: Settings) -> bool:
    """Whether one of the options was given that say how a cycle writes."""
    return any(getattr(settings, name) != Settings._field_defaults[name] for name in WRITING_NAMES)


def settings(
    *,
    ignore: tuple[str, ...] = (),
    ignore_from: tuple[str, ...] = (),
    overlay: tuple[str, ...] = (),
    owner: str | None = None,
    **rest: Any,
) -> Settings:
    """Settings without paths. Raises UsageError."""
    texts = []
    for name in ignore_from:
        try:
            with open(name, "rb") as file:
                texts.append((name, file.read()))
        except OSError as error:
            raise UsageError(f"--ignore-from {name}: {error.strerror}") from None
    overlays = []
    for given in overlay:
        path = os.fsencode(given).strip(b"/")
        try:
            overlays.append(check(path))
        except ValueError:
            raise UsageError(f"--overlay {given}: give a path relative to SOURCE, without '..'") from None
        if not path:
            raise UsageError(f"--overlay {given}: an overlay of the whole source leaves nothing to mirror")
    return Settings(
        b"", b"", ignore, tuple(texts), tuple(overlays), owner=_owner(owner) if owner else None, **rest
    )  # fmt: skip


def _owner(text: str) -> tuple[int, int]:
    uid, _, gid = text.partition(":")
    if not (uid.isdecimal() and gid.isdecimal()):
        raise UsageError(f"--owner {text}: write it as UID:GID, two numbers")
    if os.geteuid() != 0:
        raise UsageError("--owner works only as root")
    if max(int(uid), int(gid)) > HIGHEST_ID:
        raise UsageError(f"--owner {text}: the numbers go from 0 to {HIGHEST_ID}")
    return int(uid), int(gid)
