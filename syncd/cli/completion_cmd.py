"""`syncd completion SHELL`."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class


@click.command(name="completion", epilog='Example: eval "$(syncd completion bash)"')
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def command(shell: str) -> None:
    """Print the completion script for SHELL."""
    from syncd.cli.main import cli

    made = get_completion_class(shell)
    assert made is not None
    click.echo(made(cli, {}, "syncd", "_SYNCD_COMPLETE").source())
