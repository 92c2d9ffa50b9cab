"""The pages say what is true: generated parts are fresh, links lead somewhere, commands and options exist."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
FENCE = re.compile(r"^```(?:sh|console)\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)#:]+)(?:#[^)]*)?\)")


def names(pages: list[Path]) -> list[str]:
    return [str(page.relative_to(ROOT)) for page in pages]


def test_generated_parts_are_fresh() -> None:
    said = subprocess.run(
        [sys.executable, "docs/gen_cli.py", "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert said.returncode == 0, said.stderr


@pytest.mark.parametrize("page", PAGES, ids=names(PAGES))
def test_links_lead_to_files(page: Path) -> None:
    broken = [link for link in LINK.findall(page.read_text()) if not (page.parent / link).exists()]
    assert broken == []


def invocations() -> list[tuple[str, list[str]]]:
    """Every call of syncd or make in a shell block: (where, words)."""
    found = []
    for page in PAGES:
        for block in FENCE.findall(page.read_text()):
            for line in block.splitlines():
                for part in re.split(r"&&|;|\|", line.removeprefix("$ ").split("  #")[0].rstrip(" &")):
                    words = shlex.split(part)
                    if words and words[0] in ("syncd", "make"):
                        found.append((f"{page.name}: {part.strip()}", words))
    return found


CALLS = invocations()


@pytest.mark.parametrize("words", [words for _, words in CALLS], ids=[where for where, _ in CALLS])
def test_commands_and_options_exist(words: list[str]) -> None:
    if words[0] == "make":
        targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert set(words[1:]) <= set(targets)
        return
    from syncd.cli.main import cli

    with click.Context(cli, info_name="syncd") as group:
        if words[1].startswith("-"):
            known, rest = cli, words[1:]
        else:
            command = cli.get_command(group, words[1])
            assert command is not None, f"no command {words[1]}"
            known, rest = command, words[2:]
        options = {name for param in known.params for name in param.opts}
        assert {word for word in rest if word.startswith("--")} <= options


def test_pages_name_some_commands() -> None:
    assert len(CALLS) > 15  # the pattern above still finds them
