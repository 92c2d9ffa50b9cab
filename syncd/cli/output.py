"""How commands print: one JSON writer, and the naming of a pair that they share."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import click

from syncd.errors import SyncdError

BYTES = click.Path(path_type=bytes, readable=False)  # whether it must be readable depends: the command says so


def write_json(value: Any) -> None:
    """One object on one line of standard output, at once. Raises BrokenPipeError, or SyncdError if it takes no more."""
    try:
        sys.stdout.write(json.dumps(value) + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise SyncdError(f"standard output cannot be written: {error.strerror}") from None


def pair_arguments(command: Callable[..., Any]) -> Callable[..., Any]:
    """SOURCE TARGET, or TARGET alone once the pair is known."""
    command = click.argument("target", type=BYTES, required=False)(command)
    return click.argument("source", type=BYTES, metavar="[SOURCE] TARGET")(command)


json_option = click.option("--json", "as_json", is_flag=True, default=False, help="Print one JSON object.")


def size(count: float) -> str:
    """Bytes for people."""
    for unit in ("B", "KB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
