"""The event loop of a watch: control socket, signals and the live view, while the engine has its thread."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from syncd.control.runner import ENDING, Runner
from syncd.control.server import Server
from syncd.errors import UsageError
from syncd.system.dirs import socket_path

TICK = 0.1  # seconds between two looks at the progress of a first copy


class View(Protocol):
    """What shows a running watch."""

    live: bool

    def tick(self) -> None:
        """Look at the progress once more."""


def new_event_loop() -> asyncio.AbstractEventLoop:
    """uvloop's, or the standard library's where SYNCD_LOOP=asyncio says so or uvloop does not exist (Windows)."""
    wanted = os.environ.get("SYNCD_LOOP", "uvloop")
    if wanted == "asyncio" or sys.platform == "win32":
        return asyncio.new_event_loop()
    if wanted != "uvloop":
        raise UsageError(f"SYNCD_LOOP={wanted}: it can be uvloop or asyncio")
    import uvloop

    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop


def serve(runner: Runner, state: Path, on_signal: Callable[[int], None], view: View) -> None:
    """Serve until the engine's thread has ended. A signal goes to `on_signal`."""
    with asyncio.Runner(loop_factory=new_event_loop) as loop:
        loop.run(_serve(runner, state, on_signal, view))


async def _serve(runner: Runner, state: Path, on_signal: Callable[[int], None], view: View) -> None:
    loop = asyncio.get_running_loop()
    for number in ENDING:
        if signal.getsignal(number) is not signal.SIG_IGN:
            loop.add_signal_handler(number, on_signal, number)
    ended = asyncio.Event()
    runner.on_end(lambda: loop.call_soon_threadsafe(ended.set))
    server = Server(runner, socket_path(state))
    await server.start()
    try:
        async with asyncio.TaskGroup() as tasks:
            ticking = tasks.create_task(_tick(runner, view)) if view.live else None
            await ended.wait()
            if ticking is not None:
                ticking.cancel()
    finally:
        await server.close()


async def _tick(runner: Runner, view: View) -> None:
    """Redraw while the first copy runs; afterwards cycles redraw by themselves and nothing wakes."""
    while not runner.started.is_set():
        view.tick()
        await asyncio.sleep(TICK)
    view.tick()
