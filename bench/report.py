"""The words around the table: what was measured on which machine, and where it is kept."""

from __future__ import annotations

import csv
import datetime as dt
import os
import platform
import shutil
import subprocess
from pathlib import Path

import syncd
from bench import table
from bench.axes import Log, median
from bench.disk import Scratch

HERE = Path(__file__).resolve().parent


def summary(log: Log, bodies: list[str], peers: list[str], node: str, notes: list[str]) -> tuple[str, bool]:
    """Everything in words and tables, and whether no limit was missed. The first body is judged."""

    def failed(row: table.Row) -> str:
        return log.failed.get((row.axis, row.engine), "")

    def measured(rows: list[table.Row]) -> list[table.Row]:
        return [row for row in rows if table.judge(log, row) or failed(row)]

    rows = measured(table.speed_rows(bodies[0], node, log))
    parts = [f"## syncd, {bodies[0]} kernel\n\n", table.render(rows, log, failed), floor_note(log), burst_note(log)]
    for body in bodies[1:]:
        parts += [f"\n## Beside it: the {body} kernel (it must be right, not fast)\n\n"]
        parts += [table.render(measured(table.speed_rows(body, node, log)), log, failed)]
    for peer in peers:
        if shown := measured(table.lag_rows(peer)):
            parts += [f"\n## Beside it: a mirror of twenty lines around {peer}\n\n", table.render(shown, log, failed)]
    parts += ["\n", *(f"* {note}\n" for note in notes)]
    missed = [row for row in rows if failed(row) or ((found := table.judge(log, row)) and found.verdict == "MISS")]
    return "".join(parts), not missed


def floor_note(log: Log) -> str:
    """Whether the floor is one: its median lag against 1.3 × its bare system calls and the wake-ups."""
    lags = log.rounds("lag", "floor", "inplace p50 ms")
    copy, wake = (log.rounds("bare", "bare", f"{what} p50 ms") for what in ("copy", "wake"))
    both = sorted(lags.keys() & copy.keys() & wake.keys())
    if not both:
        return ""
    share = median([lags[r] / (1.3 * copy[r] + wake[r]) for r in both])
    bare, woken = (median([values[r] for r in both]) for values in (copy, wake))
    word = "an honest floor" if share <= 1 else "NOT a floor: the ratios above flatter"
    return (
        f"\nThe floor's p50 in place is {share:.2f} × (1.3 × {bare:.3f} ms of bare system calls + {woken:.3f} ms for being "
        f"woken and answering): {word}.\n"
    )


def burst_note(log: Log) -> str:
    """What no mirror that checks what it publishes can go below."""
    spent, files = (sorted(log.rounds("burst", "bare", metric).values()) for metric in ("ms", "files"))
    if not spent:
        return ""
    return (
        f"\nThe bare system calls of publishing {files[0]:,.0f} of the burst's files, by two threads that have all content in "
        f"memory, take {median(spent):.0f} ms ({spent[0]:.0f} … {spent[-1]:.0f}, {len(spent)} rounds).\n"
    )


def machine(scratch: Scratch) -> str:
    """What the figures were measured on."""
    info = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.split(":")[1].strip() for line in info if line.startswith("model name")), "unknown")
    memory = int(Path("/proc/meminfo").read_text().split()[1]) / 2**20
    tools = [_first_line(tool, "--version") for tool in ("cp", "rsync", "git", "cc") if shutil.which(tool)]
    return "\n".join(
        (
            f"kernel      {platform.release()} ({platform.machine()})",
            f"processor   {os.cpu_count()} × {model}",
            f"memory      {memory:.0f} GiB",
            f"load        {os.getloadavg()[0]:.2f} in the last minute",
            f"filesystem  ext4 on a loop image in {scratch.path.parent}, fresh for every run",
            f"python      {platform.python_version()}",
            f"syncd       {syncd.__version__}, revision {_first_line('git', '-C', str(HERE), 'describe', '--always', '--dirty')}",
            *(f"tool        {tool}" for tool in tools),
            "",
        )
    )


def save(log: Log, text: str, scratch: Scratch) -> Path:
    """Keep raw values, machine and summary."""
    into = HERE / "results" / f"{dt.datetime.now(dt.UTC):%Y-%m-%d}-{platform.node()}"
    into.mkdir(parents=True, exist_ok=True)
    with (into / "raw.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("axis", "engine", "round", "metric", "value"))
        writer.writerows((*where, f"{value:.6g}") for *where, value in log.rows)
    (into / "machine.txt").write_text(machine(scratch))
    (into / "summary.md").write_text(text)
    return into


def _first_line(*command: str) -> str:
    said = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    return (said.splitlines() or ["unknown"])[0]
