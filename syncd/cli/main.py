"""The command group: loads a command when it is called, prints errors, sets exit codes."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

import click

from syncd.errors import SyncdError
from syncd.model.path import display

COMMANDS = {
    "approve": "Let exactly one halted set of removals through.",
    "completion": "Print the completion script for a shell.",
    "diff": "Show what a cycle would do.",
    "doctor": "Look at this machine: kernel body, limits, filesystems.",
    "drift": "List what the container changed, and what was set aside.",
    "explain": "Say why a path is mirrored, ignored or behind.",
    "flush": "Wait until what was written so far is in the target.",
    "pull": "Bring the container's changes back into the source.",
    "status": "Show where a pair stands.",
    "sync": "Make TARGET equal to SOURCE once.",
    "verify": "Compare both sides by content, changing nothing.",
    "watch": "Keep TARGET equal to SOURCE until stopped.",
}


class Lazy(click.Group):  # the signatures are click's
    """Imports the module of a command only when that command is wanted."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command = importlib.import_module(f"syncd.cli.{cmd_name}_cmd").command
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(sorted(COMMANDS.items()))


GONE = "the current directory was removed, so relative paths lead nowhere; change to one that is there"


def _version(ctx: click.Context, _param: click.Parameter, wanted: bool) -> None:
    if not wanted or ctx.resilient_parsing:
        return
    from syncd import __version__
    from syncd.kernel.choose import chosen

    body, reason = chosen()
    click.echo(f"syncd {__version__} (kernel {body}: {reason})")
    ctx.exit()


@click.group(
    cls=Lazy,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Example: syncd watch ./shop /srv/mirrors/shop",
)
@click.option("--version", is_flag=True, expose_value=False, is_eager=True, callback=_version, help="Show the version.")
def cli() -> None:
    """Keep a directory equal to another one, within a millisecond of a save."""


def main() -> None:
    """Run the command line. Every SyncdError becomes one message and its exit code."""
    try:
        _run()
    except KeyboardInterrupt:
        click.echo("syncd: interrupted", err=True)
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(1)


def _has_directory() -> bool:
    try:
        os.getcwd()
    except OSError:
        return False
    return True


def _run() -> None:
    try:
        code: Any = cli.main(prog_name="syncd", standalone_mode=False)
    except click.exceptions.Abort:
        raise KeyboardInterrupt from None
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except SyncdError as error:
        click.echo(f"syncd: {error}", err=True)
        sys.exit(error.exit_code)
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            raise
        where = f"{display(os.fsencode(error.filename))}: " if error.filename else ""
        what = f"{where}{error.strerror or error}" if where or _has_directory() else GONE
        click.echo(f"syncd: {what}", err=True)
        sys.exit(1)
    sys.exit(code if isinstance(code, int) else 0)
