"""Writes docs/cli.md from the commands themselves, and the table of exit codes into it and the README.

python docs/gen_cli.py            write
python docs/gen_cli.py --check    write nothing; exit with 1 if something is stale
"""

from __future__ import annotations

import inspect
import sys
from pathlib import Path

import click

from syncd import errors

ROOT = Path(__file__).resolve().parent.parent
BEGIN, END = "<!-- exit codes: made by `make docs` -->", "<!-- end of exit codes -->"
WIDTH = 100
HEAD = """# The command line

Made by `make docs` from the commands themselves; do not edit.

A pair is named by `SOURCE TARGET`, or by `TARGET` alone once it is known (not for `watch`, `sync` and `pull`). Every command
with `--json` prints records that a program may rely on: fields are added, never renamed. A path comes as `path`, for
display, and as `path_b64` where it is not UTF-8. What keeps a command from its answer is told by its exit code and on
stderr; then there may be no record.
"""


def exit_codes() -> str:
    """The table, from the tree of errors."""
    rows = {0: "What was asked for is done"}
    for _, error in inspect.getmembers(errors, inspect.isclass):
        if issubclass(error, errors.SyncdError) and error.__bases__[0] in (errors.SyncdError, Exception):
            rows[error.exit_code] = " ".join((error.__doc__ or "").split("\n\n")[0].split()).rstrip(".")
    lines = ["| code | meaning |", "| --- | --- |"]
    return "\n".join(lines + [f"| {code} | {text} |" for code, text in sorted(rows.items())])


def commands() -> str:
    """Usage, text and options of the group and of each command, as `--help` prints them."""
    from syncd.cli.main import cli

    parts = []
    names = cli.context_settings.get("help_option_names", ["--help"])
    with click.Context(cli, info_name="syncd", terminal_width=WIDTH, help_option_names=names) as group:
        parts.append(f"## syncd\n\n```text\n{cli.get_help(group)}\n```\n")
        for name in cli.list_commands(group):
            command = cli.get_command(group, name)
            if command is None or command.hidden:
                continue
            with click.Context(command, group, name, terminal_width=WIDTH) as context:
                parts.append(f"## syncd {name}\n\n```text\n{command.get_help(context)}\n```\n")
    return "\n".join(parts)


def pages() -> dict[Path, str]:
    """What the files should hold."""
    readme = ROOT / "README.md"
    table = f"{BEGIN}\n{exit_codes()}\n{END}"
    found = {ROOT / "docs" / "cli.md": f"{HEAD}\n## Exit codes\n\n{exit_codes()}\n\n{commands()}"}
    before, begin, rest = readme.read_text(encoding="utf-8").partition(BEGIN)
    if begin:
        found[readme] = before + table + rest.partition(END)[2]
    return found


def main() -> int:
    """Write, or tell what is stale."""
    stale = [path for path, text in pages().items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    if "--check" in sys.argv[1:]:
        for path in stale:
            print(f"{path.relative_to(ROOT)} is stale: make docs", file=sys.stderr)
        return 1 if stale else 0
    for path, text in pages().items():
        path.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
