"""The control socket of a running watch: JSON-RPC 2.0, one object a line, this user only."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from syncd.control.runner import Flushed, Runner
from syncd.control.status import State
from syncd.errors import Halted, NotInSync, SyncdError, TimedOut, UsageError
from syncd.model.path import display, path_fields
from syncd.model.report import CycleReport

LINE_LIMIT = 1 << 20  # bytes of one request
LOOK = 0.02  # seconds that `status` waits for a look at the target
SPARE = 1.0  # seconds that an answer may take beyond a flush's own limit


class Server:
    """Answers questions about one runner. Lives in the event loop; never touches a root or a file below one."""

    def __init__(self, runner: Runner, path: Path) -> None:
        self._runner = runner
        self._path = path
        self._server: asyncio.Server | None = None
        self._methods: dict[str, Callable[[dict[str, Any]], Any]] = {
            "status": self._status,
            "flush": self._flush,
            "sync": self._sync,
            "approve": self._approve,
            "explain": self._explain,
            "rules": self._rules,
        }

    async def start(self) -> None:
        """Listen. The caller holds the target's lock, so a socket that stands there is a dead one's."""
        self._path.unlink(missing_ok=True)
        line = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            line.bind(str(self._path))
            self._path.chmod(0o600)  # before anybody can connect; a umask would be the engine thread's, too
            self._server = await asyncio.start_unix_server(self._serve, sock=line, limit=LINE_LIMIT)
        except BaseException:
            line.close()
            raise

    async def close(self) -> None:
        """Stop listening; the socket goes."""
        if self._server is not None:
            self._server.close()
            self._path.unlink(missing_ok=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if not _is_own(writer.get_extra_info("socket")):
                return
            while line := await reader.readline():
                writer.write(json.dumps(await self._answer(line)).encode() + b"\n")
                await writer.drain()
        except (ConnectionError, ValueError, asyncio.LimitOverrunError):
            pass  # the other side went away or sent no line
        except asyncio.CancelledError:
            pass  # the loop is ending, and whoever made this task looks only at its error
        finally:
            writer.close()

    async def _answer(self, line: bytes) -> dict[str, Any]:
        answer: dict[str, Any] = {"jsonrpc": "2.0", "id": None}
        try:
            request = json.loads(line)
            answer["id"] = request.get("id")
            method = self._methods.get(request.get("method", ""))
            if method is None:
                return answer | {"error": {"code": -32601, "message": f"no such method: {request.get('method')}"}}
            return answer | {"result": await method(request.get("params") or {})}
        except SyncdError as error:
            data = {"exit_code": error.exit_code}
            return answer | {"error": {"code": -32000, "message": str(error), "data": data}}
        except (ValueError, AttributeError, KeyError, TypeError, RecursionError) as error:
            return answer | {"error": {"code": -32600, "message": f"not a request: {error}"}}

    async def _status(self, _params: dict[str, Any]) -> dict[str, Any]:
        runner = self._runner
        if runner.status.state is State.IN_SYNC:  # else the engine is at work, and looks itself
            look = asyncio.wrap_future(runner.ask(runner.look_at_target))
            look.add_done_callback(
                lambda done: done.cancelled() or done.exception()
            )  # what came of it is in the status
            await asyncio.wait({look}, timeout=LOOK)
        control = runner.pair.control
        progress = {"entries": control.entries, "bytes": control.bytes}
        return runner.status.as_json() | {"progress": progress, "line": runner.status.line()}

    async def _flush(self, params: dict[str, Any]) -> dict[str, Any]:
        limit = float(params.get("limit", 30.0))
        deadline = time.monotonic() + limit
        runner = self._runner
        answer = runner.ask(lambda: runner.flush(deadline))
        try:
            done: Flushed = await asyncio.wait_for(asyncio.wrap_future(answer), limit + SPARE)
        except TimeoutError:
            first = runner.status.cycles == 0
            what = "the first copy is still running" if first else "a cycle is still running"
            raise TimedOut(f"not flushed within {limit:g} s: {what}") from None
        if done.halt is not None:
            raise Halted(str(done.halt))
        if done.timed_out:
            raise TimedOut(f"not flushed within {limit:g} s; writes keep coming")
        if done.missing or done.problems:
            named = [display(path) for path in done.missing]
            named += [str(problem) for problem in done.problems if problem.path not in done.missing]
            raise NotInSync("not in the target: " + "; ".join(named[:20]))
        return {"schema": 1, "flushed": True, "cycles": done.cycles}

    async def _sync(self, _params: dict[str, Any]) -> dict[str, Any]:
        done: CycleReport = await asyncio.wrap_future(self._runner.ask(self._runner.sync))
        return done.as_json()

    async def _approve(self, params: dict[str, Any]) -> dict[str, Any]:
        identity = str(params["id"])
        halt = self._runner.status.halt
        if halt is None or halt.id != identity:
            waiting = f"the one that waits is {halt.id}" if halt and halt.id else "nothing waits for approval"
            raise UsageError(f"no plan {identity} is waiting; {waiting}")
        done: CycleReport = await asyncio.wrap_future(self._runner.ask(lambda: self._runner.approve(identity)))
        if done.halt is not None:
            raise Halted(f"the source changed meanwhile: {done.halt}")
        return done.as_json()

    async def _rules(self, _params: dict[str, Any]) -> dict[str, Any]:
        settings = self._runner.pair.settings
        return {
            "ignore": list(settings.ignore),
            "ignore_from": [[name, text.hex()] for name, text in settings.ignore_from],
            "overlays": [path.hex() for path in settings.overlays],
            "vcs": settings.vcs,
            "gitignore": settings.gitignore,
        }

    async def _explain(self, params: dict[str, Any]) -> dict[str, Any]:
        path = bytes.fromhex(str(params["path"]))
        status = self._runner.status
        problems = [str(problem) for problem in status.problems if problem.path == path]
        return {
            **path_fields(path),
            "busy": path in status.busy,
            "problems": problems,
            "state": str(status.state),
            "last_hint": self._runner.last_hint(path),
            "last_write": self._runner.last_write(path),
        }


def _is_own(line: socket.socket) -> bool:
    """Whether the other side is this user (or root)."""
    if not hasattr(socket, "SO_PEERCRED"):
        return True  # the socket's mode decides
    body = line.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return struct.unpack("3i", body)[1] in (os.getuid(), 0)
