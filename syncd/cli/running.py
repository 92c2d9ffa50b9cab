"""The body of `watch` and `sync`: opens the pair, runs the engine in its thread, shows what happens.

Imports are late on purpose: the engine scans while the event loop is still being loaded.
"""

from __future__ import annotations

import os
import sys
import threading
from typing import Any

import click

from syncd.cli.ending import Ending
from syncd.cli.output import write_json
from syncd.cli.show import Show
from syncd.control.opening import Opened, open_pair, resolve
from syncd.control.runner import Runner
from syncd.control.status import Status
from syncd.engine.watch import Watch
from syncd.errors import Halted, Interrupted, NothingRunning, NotInSync, SyncdError
from syncd.kernel.choose import chosen, load
from syncd.model.report import CycleReport
from syncd.model.settings import Settings
from syncd.watchers.base import Watcher

PATIENCE = 1800.0  # seconds that `sync` waits for a cycle of the watch that holds the pair


def run(
    settings: Settings,
    source: bytes,
    target: bytes,
    *,
    once: bool = False,
    dry_run: bool = False,
    watcher: str = "auto",
    approve: str | None = None,
    as_json: bool = False,
    verbose: bool = False,
) -> None:
    """Run a pair until it is done or stopped. Raises SyncdError; at the end nothing is held any more."""
    settings = resolve(source, target, settings._replace(watcher=watcher), create=not dry_run)
    if dry_run:
        from syncd.cli.diff_cmd import show_diff

        show_diff(settings, as_json=as_json, approve=approve)
        return
    if once and _asked_running(settings, as_json, approve):
        return
    kernel = load()
    opened = open_pair(settings, kernel, lambda text: click.echo(f"syncd: {text}", err=True))
    clean = False
    try:
        if approve:
            opened.pair.guard.approved = approve
        show = Show(opened.pair, as_json=as_json, verbose=verbose, once=once)
        runner = _runner(opened, once, show)
        _until_end(runner, opened, show, once)
        # One that was cut short ends at once instead of flushing what it wrote: the journal knows all of it, and
        # only after a crash of the machine is everything compared by content.
        clean = not runner.cut
    except OSError as error:
        if error.filename is not None or isinstance(error, BrokenPipeError):
            raise
        raise SyncdError(
            f"{error.strerror or error}. The state of this pair stands in {opened.state}: look whether its disk is full or "
            "read-only; nothing is lost, and the next run goes on from there"
        ) from error
    finally:
        opened.close(clean=clean)


def _runner(opened: Opened, once: bool, show: Show) -> Runner:
    pair = opened.pair
    if once:
        from syncd.watchers.none import NoWatcher

        watcher: Watcher = NoWatcher()
        reason = "one cycle"
    else:
        from syncd.watchers.choose import choose

        watcher, reason = choose(pair.settings.watcher, pair.settings.source, pair.kernel)
        if pair.lying or watcher.name != "inotify":
            show.say(f"watching by {watcher.name}: {reason}")
    status = Status(
        pair.settings.source, pair.settings.target, chosen()[0], watcher.name, reason,
        notes=tuple(opened.notes), pid=os.getpid(),
    )  # fmt: skip
    runner = Runner(pair, Watch(watcher, pair.settings.source), status, show.cycle, once=once)
    runner.announce, runner.hurry = show.announce, not show.verbose
    show.runner = runner
    return runner


def _until_end(runner: Runner, opened: Opened, show: Show, once: bool) -> None:
    ending = Ending(runner.stop)
    ending.listen()

    def work() -> None:
        ending.leave_to_main()
        runner.run()

    thread = threading.Thread(target=work, name="engine", daemon=True)
    thread.start()
    try:
        with show:
            if once:
                while thread.is_alive():
                    thread.join(0.1 if show.live else None)
                    show.tick()
            else:
                from syncd.control.loop import serve

                serve(runner, opened.state, ending, show)
    finally:  # whatever happened here: nothing may be let go of while the engine writes
        if thread.is_alive():
            ending.listen()  # the event loop has given them back
            runner.stop()
            thread.join()
    if runner.error is not None:
        raise runner.error
    _judge(runner, once, bool(ending.number))


def _judge(runner: Runner, once: bool, interrupted: bool) -> None:
    """The exit code of a run that came to its end."""
    last = runner.status.last
    if interrupted and (once or last is None or last.cut):
        raise Interrupted("interrupted; what was copied so far is kept, and the next run goes on from there")
    if not once or last is None:
        return
    _judge_cycle(last)


def _judge_cycle(last: CycleReport) -> None:
    if last.halt is not None:
        raise Halted(last.halt.told(f"syncd sync SOURCE TARGET --approve {last.halt.id}"))
    if not last.in_sync or last.problems:
        raise NotInSync(f"{len(last.problems)} entries could not be mirrored (they are listed above)")


def _asked_running(settings: Settings, as_json: bool, approve: str | None) -> bool:
    """Whether a watch holds the pair; then it ran one full cycle for us, and let the removals `approve` through."""
    from syncd.control.client import ask
    from syncd.system.dirs import pair_dir

    try:
        state = pair_dir(settings.source, settings.target)
        done: dict[str, Any] = ask(state, "approve", PATIENCE, id=approve) if approve else ask(state, "sync", PATIENCE)
    except NothingRunning:
        return False
    if as_json:
        write_json(done)
    else:
        click.echo(f"the running watch did a full cycle: {done['put']} put, {done['removed']} removed", file=sys.stderr)
    own = Settings(settings.source, settings.target, watcher=settings.watcher)
    if settings != own:
        click.echo("syncd: the watch did it with its own options, not with those given here", err=True)
    if done["halt"]:
        raise Halted(f"halted: {done['halt']['reason']}")
    if not done["in_sync"] or done["problems"]:
        raise NotInSync("; ".join(problem["text"] for problem in done["problems"]) or "not in sync")
    return True
