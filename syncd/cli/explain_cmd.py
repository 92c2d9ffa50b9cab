"""`syncd explain … PATH`: why a path is mirrored, ignored or behind."""

from __future__ import annotations

import os
import time
from typing import Any

import click

from syncd.cli.drift_cmd import WORDS
from syncd.cli.options import RULES, with_options, with_rules_of_watch
from syncd.cli.output import BYTES, json_option, write_json
from syncd.errors import NothingRunning, UsageError
from syncd.model.change import Line
from syncd.model.entry import Entry
from syncd.model.path import check, display, is_within, path_fields
from syncd.model.report import Problem
from syncd.model.settings import Settings


@click.command(name="explain", epilog="Example: syncd explain ./shop /srv/mirrors/shop build/app.js")
@click.argument("pair_and_path", type=BYTES, nargs=-1, required=True, metavar="[SOURCE] TARGET PATH")
@json_option
@with_options(RULES)
def command(settings: Settings, pair_and_path: tuple[bytes, ...], as_json: bool) -> None:
    """Say which rule speaks of PATH (relative to SOURCE, or below it), what both sides hold, and what a watch knows."""
    from syncd.control.client import ask, find_pair
    from syncd.control.opening import resolve

    if len(pair_and_path) not in (2, 3):
        raise UsageError("name the pair and one path: syncd explain [SOURCE] TARGET PATH")
    *pair, given = pair_and_path
    if not given:  # an unset variable of a script
        raise UsageError("PATH is empty; for the root itself write .")
    source, target, state = find_pair(pair[0], pair[1] if len(pair) == 2 else None)
    settings = with_rules_of_watch(resolve(source, target, settings, create=False), state)
    path = _relative(given, settings)
    answer = _look(settings, path)
    try:
        answer["watch"] = ask(state, "explain", path=path.hex())
    except NothingRunning:
        answer["watch"] = None
    if as_json:
        write_json({"schema": 1, **path_fields(path), **answer})
        return
    click.echo(display(path))
    for line in _lines(answer):
        click.echo(f"  {line}")


def _relative(given: bytes, settings: Settings) -> bytes:
    path = os.path.normpath(given)
    for root in (settings.source, settings.target):
        if is_within(path, root):
            path = os.path.relpath(path, root)
    try:
        return check(b"" if path == b"." else path)
    except ValueError:
        raise UsageError(f"{display(given)} is not below {display(settings.source)}") from None


def _look(settings: Settings, path: bytes) -> dict[str, Any]:
    from syncd.control.reading import open_roots
    from syncd.engine.baseline import Baseline
    from syncd.engine.covered import covered
    from syncd.engine.ignore import compile_rules
    from syncd.engine.report import problem
    from syncd.engine.scan import scan
    from syncd.kernel.choose import load
    from syncd.kernel.contract import Look
    from syncd.model.entry import Kind
    from syncd.system.dirs import pair_dir
    from syncd.watchers.walk import unreadable

    kernel = load()
    rules = compile_rules(kernel, settings)
    base = Baseline(kernel, pair_dir(settings.source, settings.target), reading=True).base
    with open_roots(settings, kernel, covered(settings.target, base, rules)) as (source, target):
        looks = [Look(path, False), Look(path.rpartition(b"/")[0], False)]
        sight = scan(kernel, (source, target), rules, base, looks, kernel.control(), exact=True)
        states = [kernel.stat_many(root, [path])[0] for root in (source, target)]
        is_file = isinstance(states[0], Entry) and states[0].kind is Kind.FILE
        number = unreadable(source.fd, [path]).get(path, 0) if is_file else 0
    diff = kernel.diff(base, sight.source, sight.target)
    lines = [line for line in Line if line is not Line.SAME and any(row.path == path for row in diff.rows(line))]
    troubles = [problem(trouble) for tree in sight for trouble in tree.troubles if is_within(path, trouble.path)]
    if number and not troubles:  # no comparison had need of its content
        troubles.append(Problem(path, number, "read"))
    is_dir = any(isinstance(state, Entry) and state.kind is Kind.DIR for state in states)
    verdict = rules.explain(path, is_dir)
    rule = None
    if verdict is not None:
        rule = {"ignored": verdict.ignored, "source": verdict.source, "line": verdict.line}
        rule |= {"pattern": verdict.pattern.decode("utf-8", "backslashreplace"), "matched": display(verdict.path)}
    known = base.get(path)
    return {
        "excluded": rules.excluded(path, is_dir),
        "rule": rule,
        "write": settings.write,
        "in_baseline": known is not None,
        "line": str(lines[0]) if lines else None,
        "unreadable": [str(trouble) for trouble in troubles],
        "source": _entry(states[0]),
        "target": _entry(states[1]),
    }


def _entry(state: Entry | int | None) -> dict[str, Any] | None:
    if state is None:
        return None
    if isinstance(state, int):
        return {"errno": state}
    seen = state.seen
    return {
        "kind": state.kind.name.lower(),
        "size": seen.size,
        "mode": f"{seen.mode & 0o7777:04o}",
        "mtime_ns": seen.mtime_ns,
    }


def _lines(answer: dict[str, Any]) -> list[str]:
    lines = []
    rule = answer["rule"]
    if rule is None:
        lines.append("no rule speaks of it: it is mirrored")
    else:
        verb = "left out" if answer["excluded"] else "mirrored"
        where = "--overlay" if rule["source"] == "overlay" else f"{rule['source']}:{rule['line']}:"
        lines.append(f"{verb} by {where} {rule['pattern']} (matches {rule['matched']})")
    for side in ("source", "target"):
        entry = answer[side]
        if entry is None:
            lines.append(f"{side}: not there")
        elif "errno" in entry:
            lines.append(f"{side}: cannot be read ({os.strerror(entry['errno'])})")
        else:
            lines.append(f"{side}: {entry['kind']}, {entry['size']} bytes, mode {entry['mode']}")
    lines.append("agreed on before" if answer["in_baseline"] else "never mirrored so far")
    if (line := answer["line"]) in WORDS:
        lines.append(f"drift: the container {WORDS[line]} it, and the source has not changed there; see syncd pull")
    lines += [f"unknown: {text}" for text in answer["unreadable"]]
    watch = answer["watch"]
    if watch is None:
        lines.append("nothing watches this pair now")
        return lines
    for name, text in (("last_hint", "last word of the watcher"), ("last_write", "last written after it")):
        if watch[name] is not None:
            lines.append(f"{text}: {time.strftime('%H:%M:%S', time.localtime(watch[name]))}")
    lines += [f"problem: {problem}" for problem in watch["problems"]]
    if watch["busy"]:
        lines.append("busy: somebody is writing it")
    return lines
